"""What is set: settings, logging, queues and the error tree. Imports nothing above it."""
