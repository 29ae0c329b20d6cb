-- KEYS: session, index. ARGV: grace. Answers 1 if the session lived, otherwise 0.
-- What is of another type is no session, and stays.
live(KEYS[1])
return finish(KEYS[2], KEYS[1]) and 1 or 0
