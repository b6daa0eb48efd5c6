"""Pictures that are enhanced while no caller waits: rows, files, and the tasks that do the work."""
