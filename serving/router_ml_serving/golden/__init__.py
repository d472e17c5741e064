"""The golden set: the same requests asked of every tier again and again, their answers checked by rules and a judge."""
