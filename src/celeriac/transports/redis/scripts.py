"""The Lua scripts of the transport: each step that must not be torn apart by a crash is one of them.

They run on Redis 6.0 and later, hence LRANGE and LTRIM instead of RPOP with a count. What they share:

========================  ======  ====================================================================
``celeriac.nodes``        zset    every consumer that is alive: its id, scored with the end of its lease
``celeriac.lease:<id>``   hash    what it holds: ``<number>:<list>`` -> the message as it was in the list;
                                  ``!<number>:<list>`` beside it says that the task has begun
``celeriac.outage``       hash    ``heard``: when any consumer renewed last; ``until``: when to reap again
``celeriac.parked:<q>``   zset    messages that wait for their time: ``<list>\\n<message>``, scored with it
``celeriac.dead:<q>``     list    dead letters, newest first: one line of JSON about it, then the message
========================  ======  ====================================================================

The clock is the server's, for the nodes' clocks may differ. A script first asks whether its caller is still
in ``celeriac.nodes``: one that was reaped may not write any more (fencing).
"""

from __future__ import annotations

from typing import Final

from celeriac.net.redis_script import Script

_NOW: Final = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000\n"

# Every script below that moves messages returns nothing of what it found under keys it derives itself: the
# lists are named in the lease's fields. (Redis Cluster would not allow that; kombu's layout cannot be used
# there either.)

# JOIN: become one of the nodes, or another one after a reconnection, and take along what we held. The id is
# new on every connection: a fetch that an old one still has in flight finds its id gone and takes nothing.
#
# KEYS  1 nodes
# ARGV  1 our new id   2 lease in seconds   3 what the keys of leases begin with   then ids that we had before
# returns  {the fields we still hold}, or false when none of the old ids was there any more
JOIN: Final = Script(
    _NOW
    + """
local kept = false
for i = 4, #ARGV do
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    kept = {}
    if redis.call('EXISTS', ARGV[3] .. ARGV[i]) == 1 then
      redis.call('RENAME', ARGV[3] .. ARGV[i], ARGV[3] .. ARGV[1])
      kept = redis.call('HKEYS', ARGV[3] .. ARGV[1])
    end
  end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return kept
"""
)

# FETCH: pop and lease in one step.
#
# Queues take turns: each gives an equal part of what is asked for, what one has not the others may give.
# Of a short queue a node takes no more than its part among the nodes, so that a handful of long tasks is
# spread over all of them. Parked messages that are due go to the front of their list first.
#
# KEYS  1 nodes   2 our lease   then for every queue: parked set, its lists
# ARGV  1 our id   2 number for the first field   3 most messages   4 lists per queue
#       5 queue to begin with (0 = the first)   6 length of the key prefix
# returns  {now, when the next parked message is due ("" none), dead nodes (count), more waiting (0 or 1),
#           index of a list in KEYS, count, that many messages, index, count, messages, …}
#          or {} when we were reaped
FETCH: Final = Script(
    _NOW
    + """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {} end
local limit, per, first, cut = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] + 1
local total = redis.call('ZCARD', KEYS[1])
local alive = redis.call('ZCOUNT', KEYS[1], now, '+inf')
local queues = (#KEYS - 2) / (per + 1)
local due = ''
local lengths, waiting, filled = {}, {}, 0
for q = 0, queues - 1 do
  local base = 3 + q * (per + 1)
  local head = redis.call('ZRANGE', KEYS[base], 0, 0, 'WITHSCORES')
  if head[2] and tonumber(head[2]) <= now then
    local ready = redis.call('ZRANGEBYSCORE', KEYS[base], '-inf', now, 'LIMIT', 0, 100)
    for i = #ready, 1, -1 do
      local newline = string.find(ready[i], '\\n', 1, true)
      redis.call('RPUSH', string.sub(KEYS[base + 1], 1, cut - 1) .. string.sub(ready[i], 1, newline - 1),
                 string.sub(ready[i], newline + 1))
    end
    redis.call('ZREMRANGEBYRANK', KEYS[base], 0, #ready - 1)
    head = redis.call('ZRANGE', KEYS[base], 0, 0, 'WITHSCORES')
  end
  if head[2] and (due == '' or tonumber(head[2]) < tonumber(due)) then due = head[2] end
  local sum = 0
  for l = base + 1, base + per do
    lengths[l] = redis.call('LLEN', KEYS[l])
    sum = sum + lengths[l]
  end
  waiting[q] = sum
  if sum > 0 then filled = filled + 1 end
end
local out = {tostring(now), due, total - alive, 0}
local number, fields = tonumber(ARGV[2]), {}
local function take(q, n)
  local base = 3 + q * (per + 1)
  for l = base + 1, base + per do
    local here = math.min(n, lengths[l])
    if here > 0 then
      local got = redis.call('LRANGE', KEYS[l], -here, -1)
      redis.call('LTRIM', KEYS[l], 0, -here - 1)
      local name = ':' .. string.sub(KEYS[l], cut)
      out[#out + 1] = l
      out[#out + 1] = here
      for i = here, 1, -1 do
        out[#out + 1] = got[i]
        fields[#fields + 1] = number .. name
        fields[#fields + 1] = got[i]
        number = number + 1
      end
      lengths[l] = lengths[l] - here
      waiting[q] = waiting[q] - here
      limit = limit - here
      n = n - here
    end
  end
end
local share = {}
for q = 0, queues - 1 do share[q] = math.ceil(waiting[q] / math.max(alive, 1)) end
for round = 1, 2 do
  for i = 0, queues - 1 do
    local q = (first + i) % queues
    local n = math.min(limit, waiting[q], share[q])
    if round == 1 and filled > 0 then
      if waiting[q] > 0 then n = math.min(n, math.ceil(limit / filled)) filled = filled - 1 end
    end
    if n > 0 then
      share[q] = share[q] - n
      take(q, n)
    end
  end
end
for q = 0, queues - 1 do
  if waiting[q] > 0 then out[4] = 1 end
end
for i = 1, #fields, 1000 do
  redis.call('HSET', KEYS[2], unpack(fields, i, math.min(i + 999, #fields)))
end
return out
"""
)

# SETTLE: what is more than to forget a message (that is a plain HDEL, harmless when the lease is gone).
#
# KEYS  1 our lease
# ARGV  1 key prefix   2 how many dead letters a queue keeps   then one of these for every delivery:
#       "start", field
#       "back", field                          to the front of its list, as it was
#       "again", field, message                to the end of its list, in this new form
#       "park", field, key of the set, epoch seconds
#       "dead", field, key of the list, line about it
# returns  how many of the deliveries were still ours
SETTLE: Final = Script(
    """
local lease, ours, i = KEYS[1], 0, 3
while i <= #ARGV do
  local verb, field = ARGV[i], ARGV[i + 1]
  local message = redis.call('HGET', lease, field)
  local list = ARGV[1] .. string.sub(field, string.find(field, ':', 1, true) + 1)
  if message then
    ours = ours + 1
    if verb == 'start' then
      redis.call('HSET', lease, '!' .. field, '')
    else
      redis.call('HDEL', lease, field, '!' .. field)
      if verb == 'back' then
        redis.call('RPUSH', list, message)
      elseif verb == 'again' then
        redis.call('LPUSH', list, ARGV[i + 2])
      elseif verb == 'park' then
        redis.call('ZADD', ARGV[i + 2], ARGV[i + 3], string.sub(list, #ARGV[1] + 1) .. '\\n' .. message)
      else
        redis.call('LPUSH', ARGV[i + 2], ARGV[i + 3] .. '\\n' .. message)
        redis.call('LTRIM', ARGV[i + 2], 0, ARGV[2] - 1)
      end
    end
  end
  i = i + ((verb == 'start' or verb == 'back') and 2 or verb == 'again' and 3 or 4)
end
return ours
"""
)

# RENEW: extend our lease and tell which nodes are dead.
#
# When nobody at all has renewed for half a lease, the server or the network was away and everybody's lease
# ran out at once: then nobody is declared dead until all have had the time to come back.
#
# KEYS  1 nodes   2 outage
# ARGV  1 our id   2 lease in seconds
# returns  {ids of the dead}, or false when we were reaped ourselves
RENEW: Final = Script(
    _NOW
    + """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return false end
local lease = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
local heard, till = unpack(redis.call('HMGET', KEYS[2], 'heard', 'until'))
redis.call('HSET', KEYS[2], 'heard', tostring(now))
if heard and now - heard > lease / 2 then
  till = tostring(now + math.min(5, lease / 2))
  redis.call('HSET', KEYS[2], 'until', till)
end
if till and now < tonumber(till) then return {} end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. tostring(now))
"""
)

# INHERIT: take over from a dead node.
#
# KEYS  1 nodes   2 its lease   3 our lease
# ARGV  1 its id   2 our id   3 key prefix   then for every message:
#       its field, our field ("" = back to the front of its list), the message in its new form
# returns  our fields that we hold now; false when it is alive after all, or we are dead ourselves
INHERIT: Final = Script(
    _NOW
    + """
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) >= now or not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return false end
local ours = {}
for i = 4, #ARGV, 3 do
  local field = ARGV[i]
  if redis.call('HDEL', KEYS[2], field) == 1 then
    redis.call('HDEL', KEYS[2], '!' .. field)
    if ARGV[i + 1] == '' then
      redis.call('RPUSH', ARGV[3] .. string.sub(field, string.find(field, ':', 1, true) + 1), ARGV[i + 2])
    else
      redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i + 2], '!' .. ARGV[i + 1], '')
      ours[#ours + 1] = ARGV[i + 1]
    end
  end
end
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return ours
"""
)

# LEAVE: hand everything back that has not begun, in its old order, and be no node any more. What has begun
# stays in the lease, which has ended: whoever renews next tells that it is lost.
#
# KEYS  1 nodes   2 our lease
# ARGV  1 our id   2 key prefix   then the fields to hand back, the last one to be served first
# returns  how many were handed back
LEAVE: Final = Script(
    """
local back = 0
for i = 3, #ARGV do
  local message = redis.call('HGET', KEYS[2], ARGV[i])
  if message then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('RPUSH', ARGV[2] .. string.sub(ARGV[i], string.find(ARGV[i], ':', 1, true) + 1), message)
    back = back + 1
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return back
"""
)

# PURGE: throw away what waits in a queue.
#
# KEYS  1 parked set   then its lists
# returns  how many messages that were
PURGE: Final = Script(
    """
local count = redis.call('ZCARD', KEYS[1])
for i = 2, #KEYS do count = count + redis.call('LLEN', KEYS[i]) end
redis.call('DEL', unpack(KEYS))
return count
"""
)

OF_A_CONSUMER: Final = (JOIN, FETCH, SETTLE, RENEW, INHERIT, LEAVE)
