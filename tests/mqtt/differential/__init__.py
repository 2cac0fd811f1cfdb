"""The same packets to the listener and to mosquitto; every difference in the replies has its explanation."""
