"""The airspeed-velocity suite: one file for each kind of layer, all on the table that `fastconv bench` uses."""
