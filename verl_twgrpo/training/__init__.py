"""The thin face towards verl: settings, trainer, worker, engine, losses."""
