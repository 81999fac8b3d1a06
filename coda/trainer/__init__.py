"""Training on several machines: TrainJobs of Kubeflow Trainer 2, made, looked at and understood (decision 0029)."""
