"""Looking into the attention of a run: where a position looks, figures, one offline page."""
