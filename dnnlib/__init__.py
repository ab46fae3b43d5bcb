"""What the scripts share: options, logs and the environment. No module here imports torch."""
