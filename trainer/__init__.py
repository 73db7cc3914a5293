"""The trainer reads stores; its one link to the pipeline is `pipeline.store`."""
