"""Reads uploads in processes that can be killed: one process for each header and each picture."""
