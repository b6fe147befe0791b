"""The web app: look into the attention of a network by clicking into an image."""
