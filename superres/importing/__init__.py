"""Models from elsewhere: a foreign network becomes a model that is served as the others."""
