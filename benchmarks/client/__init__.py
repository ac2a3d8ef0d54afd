"""What this project's clients cost: processor time, speed of bulk jobs and of single texts, and time of the import."""
