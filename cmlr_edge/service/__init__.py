"""A device's life: one configuration, engines that are replaced safely, and a supervisor that is told.

`runner` puts it together, `config` is the file, `store` holds the engines, `update` judges a new one,
`outputs` are the sinks, `notify` and `unit` speak to systemd.
"""
