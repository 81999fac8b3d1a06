"""KFP pipelines: graphs only - names, order, conditions, resources. Compiled YAML lies beside them."""
