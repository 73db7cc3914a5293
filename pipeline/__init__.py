"""The pipeline: the DAG, the cache and the stores. It knows no model."""
