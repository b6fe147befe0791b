"""Studies: what helps, by how much, how sure."""
