"""What every package needs: errors, the console, files, ranks, hardware."""
