"""From decisions to deeds: the interlock, commands and their confirmation, notifications."""
