"""The Lua scripts of the Redis backend."""

from __future__ import annotations

from typing import Final

from celeriac.net.redis_script import Script

# STORE: write documents and tell who waits, but never over a SUCCESS, nor a RETRY over an end (see
# `celeriac.states.stays`). The first bytes of a document say its state, if it is JSON in Celery's order.
#
# KEYS  of the documents
# ARGV  1 seconds to keep them (0 = for ever)   then the documents
# returns  the positions of those that were not written because another document is there that this script
#          cannot read
STORE: Final = Script(
    """
local ttl, unsure = tonumber(ARGV[1]), {}
local status = '^{"status": ?"([^"]*)"'
for i = 1, #KEYS do
  local key, document = KEYS[i], ARGV[i + 1]
  local written
  if ttl > 0 then
    written = redis.call('SET', key, document, 'EX', ttl, 'NX')
  else
    written = redis.call('SET', key, document, 'NX')
  end
  if not written then
    local state = string.match(redis.call('GETRANGE', key, 0, 100), status)
    local ended = state == 'FAILURE' or state == 'REVOKED'
    if not state then
      unsure[#unsure + 1] = i
    elseif state ~= 'SUCCESS' and not (ended and string.match(document, status) == 'RETRY') then
      written = true
      if ttl > 0 then
        redis.call('SETEX', key, ttl, document)
      else
        redis.call('SET', key, document)
      end
    end
  end
  if written then redis.call('PUBLISH', key, document) end
end
return unsure
"""
)

# REPLACE: write one document over another one that was looked at.
#
# KEYS  1 of the document
# ARGV  1 seconds to keep it (0 = for ever)   2 the document that was there   3 the new one
# returns  1, or 0 when it is another one by now
REPLACE: Final = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 0 end
if tonumber(ARGV[1]) > 0 then
  redis.call('SETEX', KEYS[1], ARGV[1], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[3])
end
redis.call('PUBLISH', KEYS[1], ARGV[3])
return 1
"""
)

# GROW_CHORD: have a chord wait for more parts, unless all that it waits for have come.
#
# KEYS  1 extra parts   2 parts seen, where those that are waited for are kept as "+<task id>"   3 claim
# ARGV  1 seconds to keep all this   then the ids of their tasks
# returns  nothing
GROW_CHORD: Final = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 1 then return false end
for i = 2, #ARGV do
  if redis.call('SADD', KEYS[2], '+' .. ARGV[i]) == 1 then redis.call('INCR', KEYS[1]) end
end
for i = 1, 2 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
return false
"""
)

# CHORD_PARTS: note parts of one chord and, when they complete it, claim the body for one of their tasks, as
# CHORD_PART does below; that task has to come there for all the parts.
#
# KEYS  1 parts   2 extra parts   3 size   4 parts seen   5 claim
# ARGV  1 seconds to keep all this   2 "list" when parts are kept unordered, else "zset"
#       then for each part:  score   part   "<task id>:<score>"   its claim
# returns  0, or the position of the part whose task is to send the body
CHORD_PARTS: Final = Script(
    """
local claim = redis.call('GET', KEYS[5])
if claim == 'done' then return 0 end
local chosen = 0
for i = 3, #ARGV, 4 do
  local fresh = redis.call('SADD', KEYS[4], ARGV[i + 2]) == 1
  if fresh then
    if ARGV[2] == 'list' then
      redis.call('RPUSH', KEYS[1], ARGV[i + 1])
    else
      redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
    end
  end
  if claim == ARGV[i + 3] or (fresh and not claim) then chosen = i end
end
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[1]) end
if chosen == 0 then return 0 end
local count
if ARGV[2] == 'list' then
  count = redis.call('LLEN', KEYS[1])
else
  count = redis.call('ZCARD', KEYS[1])
end
local size = redis.call('GET', KEYS[3])
if not size or count < size + (redis.call('GET', KEYS[2]) or 0) then return 0 end
redis.call('SETEX', KEYS[5], ARGV[1], ARGV[chosen + 3])
return (chosen + 1) / 4
"""
)

# CHORD_PART: note a part and, when it completes the chord, claim the body for this caller.
#
# The parts and their number are Celery's keys. Its 5.7 also has the set of parts seen, which makes a part
# that comes twice harmless, and the claim: a word of whoever sends the body, in the end "done". Ours is
# "celeriac <task id>" of the part that completed the chord: when that comes again, because its worker has
# died before the body was sent, it gets the parts again.
#
# KEYS  1 parts   2 extra parts   3 size   4 parts seen   5 claim   6 shape of the group
# ARGV  1 score   2 part   3 "<task id>:<score>"   4 seconds to keep all this   5 our claim
#       6 "list" when parts are kept unordered, else "zset"
# returns  false, or {shape ("" = flat), part, part, …} to exactly one caller
CHORD_PART: Final = Script(
    """
local claim = redis.call('GET', KEYS[5])
if claim == 'done' then return false end
local fresh = redis.call('SADD', KEYS[4], ARGV[3]) == 1
local count
if ARGV[6] == 'list' then
  if fresh then redis.call('RPUSH', KEYS[1], ARGV[2]) end
  count = redis.call('LLEN', KEYS[1])
else
  if fresh then redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2]) end
  count = redis.call('ZCARD', KEYS[1])
end
local size = redis.call('GET', KEYS[3])
for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end
if not size or count < size + (redis.call('GET', KEYS[2]) or 0) then return false end
if claim and claim ~= ARGV[5] then return false end
if not claim and not fresh then return false end -- a worker of Celery's 5.6, which claims nothing, has it
redis.call('SETEX', KEYS[5], ARGV[4], ARGV[5])
local found = {redis.call('GET', KEYS[6]) or ''}
local parts
if ARGV[6] == 'list' then
  parts = redis.call('LRANGE', KEYS[1], 0, -1)
else
  parts = redis.call('ZRANGE', KEYS[1], 0, -1)
end
for i = 1, #parts do found[i + 1] = parts[i] end
return found
"""
)
