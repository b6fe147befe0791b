"""What the records say: contrasts, verdicts, claims."""
