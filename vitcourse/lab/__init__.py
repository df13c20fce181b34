"""Around the lessons: set-up, doctor, JupyterLab, notebooks."""
