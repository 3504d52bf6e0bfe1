"""What every pool does: scenarios written once, run on threads, on asyncio and on trio."""
