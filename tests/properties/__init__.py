"""Relations that hold for every model, tested on models that hypothesis draws."""
