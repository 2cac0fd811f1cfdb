"""One runner per sink: batch, send, judge each record's outcome, move the cursor."""
