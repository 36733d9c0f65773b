"""What is known: tables, SQL functions, event schemas and migrations."""
