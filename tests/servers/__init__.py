"""Real servers, each started by a test and gone with it."""
