"""Models on the disk: their cards, and which one a request asks for."""
