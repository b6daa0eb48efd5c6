"""Folders of pictures enlarged by one model: the plan, the ledger, and the threads that work."""
