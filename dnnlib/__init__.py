"""Small utilities that know nothing of this project: no module here imports first-party code or torch."""
