"""What training changes: arrays by path, on devices and in checkpoints."""
