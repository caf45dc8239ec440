"""What each command does. Nothing heavy is imported before a command needs it."""
