"""The Lua scripts of those who send messages and look after queues; `scripts` tells of the keys."""

from __future__ import annotations

from typing import Final

from celeriac.net.redis_script import Script

# Puts a message with a key at the end of its line, see `celeriac.rounds.join`. The list comes without prefix.
JOIN_ROUND: Final = """
local function join_round(prefix, due, list, key, message)
  local rounds = prefix .. 'celeriac.rounds:' .. list
  local round = tonumber(redis.call('ZSCORE', rounds, '') or 0)
  local last = redis.call('ZSCORE', rounds, key)
  if last then round = math.max(round, last + 1) end
  redis.call('ZADD', rounds, round, key)
  local number = string.format('%016d', -redis.call('ZINCRBY', rounds, -1, '#'))
  redis.call('ZADD', prefix .. 'celeriac.keyed:' .. list, round, number .. '\\n' .. message)
  redis.call('ZADD', due, -1, '\\n' .. list)
end
"""

# SEND_ONCE: put a message into its lists, unless it or one after it has been there.
#
# KEYS  1 sent_once   then the lists
# ARGV  1 the row that it is numbered in   2 its number   3 the message
# returns  1 when it was put, or 0
SEND_ONCE: Final = Script(
    """
local last = redis.call('HGET', KEYS[1], ARGV[1])
if last and tonumber(last) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for i = 2, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[3]) end
return 1
"""
)

# SEND_KEYED: put messages that take turns by a key into line.
#
# KEYS  1 due
# ARGV  1 key prefix   2 the list, without the prefix   then key, message, key, message, …
SEND_KEYED: Final = Script(
    JOIN_ROUND
    + """
for i = 3, #ARGV, 2 do join_round(ARGV[1], KEYS[1], ARGV[2], ARGV[i], ARGV[i + 1]) end
"""
)

# PURGE: throw away what waits in a queue.
#
# KEYS  1 parked set   2 due   then its lists
# ARGV  1 the queue   2 key prefix
# returns  how many messages that were
PURGE: Final = Script(
    """
local count = redis.call('ZCARD', KEYS[1])
for i = 3, #KEYS do
  local list = string.sub(KEYS[i], #ARGV[2] + 1)
  local keyed = ARGV[2] .. 'celeriac.keyed:' .. list
  count = count + redis.call('LLEN', KEYS[i]) + redis.call('ZCARD', keyed)
  redis.call('DEL', KEYS[i], keyed, ARGV[2] .. 'celeriac.rounds:' .. list)
  redis.call('ZREM', KEYS[2], '\\n' .. list)
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return count
"""
)

# RETRY: send dead letters again.
#
# KEYS  1 the list of dead letters
# ARGV  item of that list, list to send to, message, and so on
# returns  which of them were there, counted from 1
RETRY: Final = Script(
    """
local moved = {}
for i = 1, #ARGV, 3 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    redis.call('LPUSH', ARGV[i + 1], ARGV[i + 2])
    moved[#moved + 1] = (i + 2) / 3
  end
end
return moved
"""
)
