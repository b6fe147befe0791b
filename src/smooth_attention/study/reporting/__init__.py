"""What people read: tables, results.csv, the report."""
