"""The Lua scripts of a consumer: each step that must not be torn apart by a crash is one of them.

They run on Redis 6.0 and later, hence LRANGE and LTRIM instead of RPOP with a count. What they share:

========================  ======  ====================================================================
``celeriac.nodes``        zset    every consumer that is alive: its id, scored with the end of its lease
``celeriac.lease:<id>``   hash    what it holds: ``<number>:<list>`` -> the message as it was in the list;
                                  ``!<number>:<list>`` beside it says that the task has begun
``celeriac.catch:<id>``   list    what the server has handed it by itself, until more is to be said of it
``celeriac.catching``     hash    id -> the list that it waits for; when its node is dead a newline and the
                                  time at which that was seen follow
``celeriac.outage``       hash    ``heard``: when any consumer renewed last; ``until``: when to reap again
``celeriac.parked:<q>``   zset    messages that wait for their time: ``<list>\\n<message>``, scored with it;
                                  those that take turns have ``\\r<key>\\r`` before that
``celeriac.due``          zset    the queues that have such messages, scored with the time of the first one;
                                  and with -1 the lists whose messages take turns: ``\\n<list>``
``celeriac.keyed:<l>``    zset    messages of a list that take turns by a key: ``<number>\\n<message>``,
                                  scored with their round
``celeriac.rounds:<l>``   zset    key -> the round of its last message; beside them the round under way, under
                                  "", that of the last message without a key, under "-", and how many have
                                  come, below 0, under "#". Gone when none wait
``celeriac.dead:<q>``     list    dead letters, newest first: one line of JSON about it, then the message
``celeriac.sent_once``    hash    of those who number what they send the last number
========================  ======  ====================================================================

The clock is the server's, for the nodes' clocks may differ. A script first asks whether its caller is still
in ``celeriac.nodes``: one that was reaped may not write any more (fencing). One of which only a part could be
taken over stays there for whoever can take the rest, with 0 for a score: it is dead as well.
"""

from __future__ import annotations

from typing import Final

from celeriac.net.redis_script import Script
from celeriac.transports.redis.sender_scripts import JOIN_ROUND

_ALIVE: Final = """
local function alive(nodes, id)
  local ends = redis.call('ZSCORE', nodes, id)
  return ends and tonumber(ends) > 0
end
"""
_NOW: Final = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000\n"

# Every script below that moves messages returns nothing of what it found under keys it derives itself: the
# lists are named in the lease's fields. (Redis Cluster would not allow that; kombu's layout cannot be used
# there either.)

# JOIN: become one of the nodes, or another one after a reconnection, and take along what we held. The id is
# new on every connection: a fetch that an old one still has in flight finds its id gone and takes nothing.
#
# KEYS  1 nodes   2 catching
# What was caught is taken along even if the id was not there any more: others look for it only as long as
# they are told of it, which somebody who empties the database ends.
#
# ARGV  1 our new id   2 lease in seconds   3 what the keys of leases begin with   4 those of catches
#       5 the list that we waited for last   then ids that we had before
# returns  {1 if an old id was still there, {fields that we still hold}, {caught messages, the oldest first},
#           the list of these}, or false when there is neither an old id nor anything caught
JOIN: Final = Script(
    _ALIVE
    + _NOW
    + """
local kept = false
for i = 6, #ARGV do
  local known = alive(KEYS[1], ARGV[i]) and redis.call('ZREM', KEYS[1], ARGV[i]) or 0
  local caught = redis.call('LRANGE', ARGV[4] .. ARGV[i], 0, -1)
  if known == 1 or #caught > 0 then
    local noted = redis.call('HGET', KEYS[2], ARGV[i]) or ARGV[5]
    kept = {known, {}, {}, string.match(noted, '^[^\\n]*')}
    if known == 1 and redis.call('EXISTS', ARGV[3] .. ARGV[i]) == 1 then
      redis.call('RENAME', ARGV[3] .. ARGV[i], ARGV[3] .. ARGV[1])
      kept[2] = redis.call('HKEYS', ARGV[3] .. ARGV[1])
    end
    if #caught > 0 then
      redis.call('RENAME', ARGV[4] .. ARGV[i], ARGV[4] .. ARGV[1])
      redis.call('HSET', KEYS[2], ARGV[1], kept[4])
      redis.call('HDEL', KEYS[2], ARGV[i])
      for j = #caught, 1, -1 do kept[3][#caught - j + 1] = caught[j] end
    end
  end
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return kept
"""
)

# FETCH: pop and lease in one step.
#
# Queues take turns: each gives an equal part of what is asked for first, what is left they give in turn. Of a
# short queue a node takes no more than its part among the nodes, so that a handful of long tasks is spread
# over all of them. Messages that have waited for their time go to the front of their list before.
#
# Messages that take turns by a key come into their list here, right before they are taken: as many as
# `celeriac.rounds.next_ones` says. None are looked for unless `due` tells of them, so others pay nothing.
#
# Every redis.call costs 1.5 µs here, so nothing is counted that popping tells as well.
#
# KEYS  1 nodes   2 our lease   3 due   then the lists of every queue
# ARGV  1 our id   2 number for the first field   3 most messages   4 lists per queue
#       5 queue to begin with (0 = the first)   6 key prefix   7 nodes alive
# returns  {now ("" when nothing is parked), when the next parked message is due ("", or 0 when messages are
#           left that take turns),
#           index of a list in KEYS, count, that many messages, index, count, messages, …}
#          or {} when we were reaped
FETCH: Final = Script(
    _ALIVE
    + JOIN_ROUND
    + """
if not alive(KEYS[1], ARGV[1]) then return {} end
local out = {'', ''}
local head = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local turns = head[1] and tonumber(head[2]) < 0
local function first_due()
  return redis.call('ZRANGEBYSCORE', KEYS[3], 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
end
if turns then head = first_due() end
if head[1] then
  local t = redis.call('TIME')
  local now = t[1] + t[2] / 1000000
  out[1] = tostring(now)
  while head[1] and tonumber(head[2]) <= now do
    local parked = ARGV[6] .. 'celeriac.parked:' .. head[1]
    local ready = redis.call('ZRANGEBYSCORE', parked, '-inf', now, 'LIMIT', 0, 200)
    for i = #ready, 1, -1 do
      local newline = string.find(ready[i], '\\n', 1, true)
      local list, message = string.sub(ready[i], 1, newline - 1), string.sub(ready[i], newline + 1)
      if string.byte(list) ~= 13 then redis.call('RPUSH', ARGV[6] .. list, message) end
    end
    for i = 1, #ready do
      local key, list, message = string.match(ready[i], '^\\r([^\\r]*)\\r([^\\n]*)\\n(.*)$')
      if key then
        join_round(ARGV[6], KEYS[3], list, key, message)
        turns = true
      end
    end
    if #ready > 0 then redis.call('ZREMRANGEBYRANK', parked, 0, #ready - 1) end
    local next = redis.call('ZRANGE', parked, 0, 0, 'WITHSCORES')
    if next[1] then
      redis.call('ZADD', KEYS[3], next[2], head[1])
    else
      redis.call('ZREM', KEYS[3], head[1])
    end
    head = first_due()
  end
  out[2] = head[2] or ''
end
local number, limit, per = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first, alive = tonumber(ARGV[5]), tonumber(ARGV[7])
local queues = (#KEYS - 3) / per
local cut, used, fields, done = #ARGV[6] + 1, 2, {}, {}
local taking = {}
if turns then
  local marks = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(0')
  for i = 1, #marks do taking[ARGV[6] .. string.sub(marks[i], 2)] = string.sub(marks[i], 2) end
end
local function choose(l, list, n)
  local line, rounds = ARGV[6] .. 'celeriac.keyed:' .. list, ARGV[6] .. 'celeriac.rounds:' .. list
  local waiting = redis.call('ZRANGE', line, 0, n - 1, 'WITHSCORES')
  local others, keyed, plain = redis.call('LLEN', KEYS[l]), 0, 0
  local now, last = tonumber(redis.call('ZSCORE', rounds, '') or 0), redis.call('ZSCORE', rounds, '-')
  local own = last and math.max(now, last + 1) or now
  while keyed + plain < n do
    local round = tonumber(waiting[2 * keyed + 2])
    if round and (plain == others or round <= own) then
      now, own, keyed = round, math.max(own, round), keyed + 1
    elseif plain < others then
      now, last, own, plain = own, own, own + 1, plain + 1
    else
      break
    end
  end
  for i = keyed, 1, -1 do
    local member = waiting[2 * i - 1]
    redis.call('RPUSH', KEYS[l], string.sub(member, string.find(member, '\\n', 1, true) + 1))
  end
  if keyed > 0 then redis.call('ZREMRANGEBYRANK', line, 0, keyed - 1) end
  if redis.call('EXISTS', line) == 0 then
    redis.call('DEL', rounds)
    redis.call('ZREM', KEYS[3], '\\n' .. list)
    taking[KEYS[l]] = nil
  else
    redis.call('ZADD', rounds, now, '')
    if last then redis.call('ZADD', rounds, last, '-') end
    redis.call('ZREMRANGEBYSCORE', rounds, 0, '(' .. string.format('%.0f', now))
  end
end
local function pop(l, n)
  local list = taking[KEYS[l]]
  if alive > 1 then
    local waiting = redis.call('LLEN', KEYS[l])
    if list then waiting = waiting + redis.call('ZCARD', ARGV[6] .. 'celeriac.keyed:' .. list) end
    n = math.min(n, math.ceil(waiting / alive))
    if n == 0 then return 0 end
  end
  if list then choose(l, list, n) end
  local got = redis.pcall('RPOP', KEYS[l], n)
  if not got then return 0 end
  if got.err then -- Redis 6.0 pops one at a time
    local found = redis.call('LRANGE', KEYS[l], -n, -1)
    redis.call('LTRIM', KEYS[l], 0, -n - 1)
    got = {}
    for i = #found, 1, -1 do got[#found - i + 1] = found[i] end
  end
  local count, name = #got, ':' .. string.sub(KEYS[l], cut)
  out[used + 1] = l
  out[used + 2] = count
  used = used + 2
  for i = 1, count do
    local f = 2 * (i - 1)
    fields[f + 1] = number .. name
    fields[f + 2] = got[i]
    out[used + i] = got[i]
    number = number + 1
  end
  used = used + count
  for i = 1, 2 * count, 2000 do
    redis.call('HSET', KEYS[2], unpack(fields, i, math.min(i + 1999, 2 * count)))
  end
  return count
end
local part = math.ceil(limit / queues)
for round = 1, 2 do
  for i = 0, queues - 1 do
    local q = (first + i) % queues
    local l, last = 4 + q * per, 3 + q * per + per
    local wanted = math.min(limit, part)
    while wanted > 0 and l <= last and not done[q] do
      local got = pop(l, wanted)
      limit = limit - got
      wanted = wanted - got
      l = l + 1
    end
    if alive > 1 or wanted > 0 then done[q] = true end
  end
  part = limit
end
for l = 4, #KEYS do
  if taking[KEYS[l]] then out[2] = '0' end
end
return out
"""
)

# QUICK: pop and lease the one message that the bell rang for. A script that has not run for a moment is slow,
# the more so the longer it is (under load 63 µs for FETCH, 30 for this one), and clients wait for this.
#
# After a reconnection it also takes in what was caught: then the list is our catch, and the field names the
# list it came from.
#
# KEYS  1 nodes   2 our lease   3 list
# ARGV  1 our id   2 field
# returns  as FETCH does
QUICK: Final = Script(
    _ALIVE
    + """
if not alive(KEYS[1], ARGV[1]) then return {} end
local message = redis.call('RPOP', KEYS[3])
if not message then return {'', ''} end
redis.call('HSET', KEYS[2], ARGV[2], message)
return {'', '', 3, 1, message}
"""
)

# SETTLE: what is more than to forget a message (that is a plain HDEL, harmless when the lease is gone).
#
# KEYS  1 our lease   2 due
# ARGV  1 key prefix   2 how many dead letters a queue keeps   then one of these for every delivery:
#       "start", field
#       "back", field                          to the front of its list, as it was
#       "again", field, message                to the end of its list, in this new form
#       "turn", field, message, key            likewise, to take turns by that key
#       "park", field, queue, epoch seconds
#       "rest", field, queue, epoch seconds, key   likewise, to take turns after that
#       "dead", field, key of the list, line about it
# returns  how many of the deliveries were still ours
SETTLE: Final = Script(
    JOIN_ROUND
    + """
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
      elseif verb == 'turn' then
        join_round(ARGV[1], KEYS[2], string.sub(list, #ARGV[1] + 1), ARGV[i + 3], ARGV[i + 2])
      elseif verb == 'park' or verb == 'rest' then
        local queue, at = ARGV[i + 2], ARGV[i + 3]
        local parked = string.sub(list, #ARGV[1] + 1) .. '\\n' .. message
        if verb == 'rest' then parked = '\\r' .. ARGV[i + 4] .. '\\r' .. parked end
        redis.call('ZADD', ARGV[1] .. 'celeriac.parked:' .. queue, at, parked)
        local earlier = redis.call('ZSCORE', KEYS[2], queue)
        if not earlier or tonumber(at) < tonumber(earlier) then redis.call('ZADD', KEYS[2], at, queue) end
      else
        redis.call('LPUSH', ARGV[i + 2], ARGV[i + 3] .. '\\n' .. message)
        redis.call('LTRIM', ARGV[i + 2], 0, ARGV[2] - 1)
      end
    end
  end
  i = i + (({start = 2, back = 2, again = 3, rest = 5})[verb] or 4)
end
return ours
"""
)

# TAKE_IN: put into our lease what was caught. When we were reaped it is not there any more.
#
# KEYS  1 our lease   2 our catch
# ARGV  field, message, field, message, …
# returns  how many were there
TAKE_IN: Final = Script(
    """
local count = 0
for i = 1, #ARGV, 2 do
  if redis.call('LREM', KEYS[2], -1, ARGV[i + 1]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    count = count + 1
  end
end
return count
"""
)

# PUT_BACK: give back what was caught and is not wanted. When we were reaped it is not there any more, or will
# not be when the dead are searched: whoever comes first puts it back.
#
# KEYS  1 a catch   2 the list that it came from
# ARGV  1 the message
# returns  how many were there
PUT_BACK: Final = Script(
    """
local found = redis.call('LREM', KEYS[1], -1, ARGV[1])
if found == 1 then redis.call('RPUSH', KEYS[2], ARGV[1]) end
return found
"""
)

# RENEW: extend our lease and tell which nodes are dead.
#
# When nobody at all has renewed for half a lease, the server or the network was away and everybody's lease
# ran out at once: then nobody is declared dead until all have had the time to come back.
#
# The server's clock may be set. Forward looks like an outage. Back would keep dead nodes alive for as long as
# that, so their leases go back with it.
#
# A command that a dead node's machine had still to deliver may be carried out after the node was reaped. So
# now and then those are looked for that catch and are no nodes.
#
# KEYS  1 nodes   2 outage   3 catching
# ARGV  1 our id   2 lease in seconds   3 whether to look for those (0 or 1)
# returns  {how many nodes are alive, ids of the dead, …}, or false when we were reaped ourselves
RENEW: Final = Script(
    _ALIVE
    + _NOW
    + """
if not alive(KEYS[1], ARGV[1]) then return false end
local lease = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
local heard, till = unpack(redis.call('HMGET', KEYS[2], 'heard', 'until'))
redis.call('HSET', KEYS[2], 'heard', tostring(now))
if heard and now < tonumber(heard) then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if id ~= ARGV[1] and alive(KEYS[1], id) then redis.call('ZINCRBY', KEYS[1], now - heard, id) end
  end
  redis.call('HDEL', KEYS[2], 'until')
  till = false
end
if heard and now - heard > lease / 2 then
  till = tostring(now + math.min(5, lease / 2))
  redis.call('HSET', KEYS[2], 'until', till)
end
local out = {redis.call('ZCOUNT', KEYS[1], now, '+inf')}
if not till or now >= tonumber(till) then
  local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. tostring(now))
  for i = 1, #dead do out[i + 1] = dead[i] end
end
if ARGV[3] == '1' then
  local catching = redis.call('HKEYS', KEYS[3])
  for i = 1, #catching do
    if not redis.call('ZSCORE', KEYS[1], catching[i]) then out[#out + 1] = catching[i] end
  end
end
return out
"""
)

# SALVAGE: see what a dead node held; what it had caught is put into its lease first.
#
# It may be alive, and its last wait for a message not over yet. So what it catches now is looked for once
# more, when that has surely ended.
#
# KEYS  1 nodes   2 its catch   3 its lease   4 catching
# ARGV  1 its id   2 after how many seconds none of its waits can go on
# returns  {its fields}, or false when it is alive after all
SALVAGE: Final = Script(
    _NOW
    + """
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends and tonumber(ends) >= now then return false end
local noted, number = redis.call('HGET', KEYS[4], ARGV[1]), -1
if noted then
  local list, seen = string.match(noted, '^([^\\n]*)\\n?(.*)$')
  local message = redis.call('RPOP', KEYS[2])
  while message do
    while redis.call('HEXISTS', KEYS[3], number .. ':' .. list) == 1 do number = number - 1 end
    redis.call('HSET', KEYS[3], number .. ':' .. list, message)
    message = redis.call('RPOP', KEYS[2])
  end
  if seen == '' then
    redis.call('HSET', KEYS[4], ARGV[1], list .. '\\n' .. tostring(now))
  elseif math.abs(now - tonumber(seen)) > tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[4], ARGV[1])
  end
end
return redis.call('HKEYS', KEYS[3])
"""
)

# INHERIT: take over from a dead node.
#
# KEYS  1 nodes   2 its lease   3 our lease
# ARGV  1 its id   2 our id   3 key prefix   then for every message:
#       its field, our field ("" = back to the front of its list), the message in its new form
# returns  our fields that we hold now; false when it is alive after all, or we are dead ourselves
INHERIT: Final = Script(
    _ALIVE
    + _NOW
    + """
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if (ends and tonumber(ends) >= now) or not alive(KEYS[1], ARGV[2]) then return false end
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
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
end
return ours
"""
)

# LEAVE: hand everything back that has not begun, in its old order, and be no node any more. What has begun
# stays in the lease, which has ended: whoever renews next tells that it is lost.
#
# KEYS  1 nodes   2 our lease   3 catching
# ARGV  1 our id   2 key prefix   then the fields to hand back, the last one to be served first
# returns  how many were handed back
LEAVE: Final = Script(
    """
local back = 0
redis.call('HDEL', KEYS[3], ARGV[1])
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

OF_A_CONSUMER: Final = (JOIN, FETCH, QUICK, TAKE_IN, PUT_BACK, SETTLE, RENEW, SALVAGE, INHERIT, LEAVE)
