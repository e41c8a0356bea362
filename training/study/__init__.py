"""`icr train study`: arms x seeds trained, evaluated through lm_eval and compared, from one file."""
