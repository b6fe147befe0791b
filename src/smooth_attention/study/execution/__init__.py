"""Running a study: runs here or on a cluster, and what they left."""
