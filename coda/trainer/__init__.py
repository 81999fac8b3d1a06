"""Training on several machines: TrainJobs of Kubeflow Trainer 2, made, polled and understood (decision 0029)."""
