"""What a grid costs: multiply-adds, measured rates."""
