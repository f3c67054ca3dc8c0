"""Each change as one Lua script, which Redis runs whole or not at all (https://redis.io/docs/latest/develop/programmability/).

``KEYS[1]`` is the prefix of a service, whose braces keep all of its keys on one node of a cluster. Times are the
server's, so clocks of workers do not matter. Below the prefix:

- ``:task:<id>`` a hash: the record, input and result,
- ``:waiting:<name>`` ids that are due, ordered by priority and then by number; ``:later:<name>`` those of failed runs,
- ``:leases`` ids that run, by the end of their lease,
- ``:key:<name>:<key>`` the id of an idempotency key; ``:names`` names of tasks; ``:number`` of the last task.
"""

from __future__ import annotations

__all__ = ["SCRIPTS"]

_HEAD = """
local prefix = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function text(seconds) return string.format('%.6f', seconds) end
local function task(id) return prefix .. ':task:' .. id end
local function waiting(name) return prefix .. ':waiting:' .. name end
local function later(name) return prefix .. ':later:' .. name end
local leases = prefix .. ':leases'
local function wait(id)
  local found = redis.call('HMGET', task(id), 'name', 'score')
  redis.call('ZADD', waiting(found[1]), found[2], id)
  redis.call('HSET', task(id), 'state', 'pending', 'owner', '')
end
local function ended(id, state)
  local found = redis.call('HMGET', task(id), 'name', 'ttl', 'key')
  redis.call('ZREM', leases, id)
  redis.call('ZREM', waiting(found[1]), id)
  redis.call('ZREM', later(found[1]), id)
  redis.call('HSET', task(id), 'state', state, 'finished', text(now), 'owner', '')
  local ttl = math.max(1, math.floor(tonumber(found[2]) * 1000))
  redis.call('PEXPIRE', task(id), ttl)
  if found[3] and found[3] ~= '' then redis.call('PEXPIRE', prefix .. ':key:' .. found[1] .. ':' .. found[3], ttl) end
end
local function owns(id, owner)
  local found = redis.call('HMGET', task(id), 'state', 'owner')
  return found[1] == 'in_progress' and found[2] == owner
end
local function promote(name)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', later(name), '-inf', text(now))) do
    redis.call('ZREM', later(name), id)
    wait(id)
  end
end
"""

_BODIES = {
    # id, name, priority, ttl, key, fingerprint, most that may wait, is a form, head, body
    "submit": """
local id, name, key = ARGV[1], ARGV[2], ARGV[5]
if redis.call('EXISTS', task(id)) == 1 then return {'known', id, ''} end
local keyed = prefix .. ':key:' .. name .. ':' .. key
if key ~= '' then
  local found = redis.call('GET', keyed)
  if found and redis.call('EXISTS', task(found)) == 1 then
    if ARGV[8] == '1' or redis.call('HGET', task(found), 'fingerprint') == ARGV[6] then return {'known', found, ''} end
    return {'conflict', '', ''}
  end
end
local number = redis.call('ZCARD', waiting(name)) + redis.call('ZCARD', later(name))
if number >= tonumber(ARGV[7]) then return {'full', tostring(number), ''} end
local order = redis.call('INCR', prefix .. ':number')
local score = string.format('%.0f', (100 - tonumber(ARGV[3])) * 17592186044416 + order)
redis.call('HSET', task(id), 'name', name, 'state', 'pending', 'priority', ARGV[3], 'ttl', ARGV[4], 'key', key,
  'fingerprint', ARGV[6], 'created', text(now), 'attempt', 0, 'losses', 0, 'owner', '', 'score', score,
  'input_head', ARGV[9], 'input', ARGV[10])
redis.call('ZADD', waiting(name), score, id)
redis.call('SADD', prefix .. ':names', name)
if key ~= '' then redis.call('SET', keyed, id) end
return {'new', id, text(now)}
""",
    # name, owner, limit, seconds
    "claim": """
promote(ARGV[1])
local claims = {}
for _, id in ipairs(redis.call('ZRANGE', waiting(ARGV[1]), 0, tonumber(ARGV[3]) - 1)) do
  redis.call('ZREM', waiting(ARGV[1]), id)
  redis.call('ZADD', leases, text(now + tonumber(ARGV[4])), id)
  redis.call('HDEL', task(id), 'progress', 'message')
  redis.call('HSET', task(id), 'state', 'in_progress', 'owner', ARGV[2], 'started', text(now))
  local attempt = redis.call('HINCRBY', task(id), 'attempt', 1)
  local input = redis.call('HMGET', task(id), 'input_head', 'input')
  claims[#claims + 1] = {id, attempt, input[1], input[2]}
end
return claims
""",
    # owner, seconds, ids
    "renew": """
for index = 3, #ARGV do
  if owns(ARGV[index], ARGV[1]) then redis.call('ZADD', leases, text(now + tonumber(ARGV[2])), ARGV[index]) end
end
return 0
""",
    # owner
    "owned": """
local found = {}
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  if owns(id, ARGV[1]) then found[#found + 1] = id end
end
return found
""",
    # id, owner, names and values
    "tell": """
if not owns(ARGV[1], ARGV[2]) then return 0 end
for index = 3, #ARGV, 2 do redis.call('HSET', task(ARGV[1]), ARGV[index], ARGV[index + 1]) end
return 1
""",
    # id, owner, state, head, body
    "finish": """
if not owns(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', task(ARGV[1]), 'result_head', ARGV[4], 'result', ARGV[5])
ended(ARGV[1], ARGV[3])
return 1
""",
    # id, owner, seconds; empty: the run does not count
    "give_back": """
if not owns(ARGV[1], ARGV[2]) then return 0 end
redis.call('ZREM', leases, ARGV[1])
if ARGV[3] == '' then
  redis.call('HINCRBY', task(ARGV[1]), 'attempt', -1)
  wait(ARGV[1])
else
  redis.call('HSET', task(ARGV[1]), 'state', 'pending', 'owner', '')
  redis.call('ZADD', later(redis.call('HGET', task(ARGV[1]), 'name')), text(now + tonumber(ARGV[3])), ARGV[1])
end
return 1
""",
    # start of the owners' names
    "reclaim": """
local number = 0
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  local owner = redis.call('HGET', task(id), 'owner')
  if owner and string.sub(owner, 1, #ARGV[1]) == ARGV[1] then
    redis.call('ZADD', leases, 0, id)
    number = number + 1
  end
end
return number
""",
    # most losses, head, body
    "reap": """
local ids = redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. text(now))
for _, id in ipairs(ids) do
  redis.call('ZREM', leases, id)
  if redis.call('HINCRBY', task(id), 'losses', 1) >= tonumber(ARGV[1]) then
    redis.call('HSET', task(id), 'result_head', ARGV[2], 'result', ARGV[3])
    ended(id, 'failed')
  else
    wait(id)
  end
end
return #ids
""",
    # name, id
    "cancel": """
local found = redis.call('HMGET', task(ARGV[2]), 'name', 'state')
if found[1] == ARGV[1] and (found[2] == 'pending' or found[2] == 'in_progress') then ended(ARGV[2], 'canceled') end
return 0
""",
    "counts": """
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', prefix .. ':names')) do
  local number = redis.call('ZCARD', waiting(name)) + redis.call('ZCARD', later(name))
  if number > 0 then found[#found + 1] = {name, 'pending', number} end
end
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
  found[#found + 1] = {redis.call('HGET', task(id), 'name'), 'in_progress', 1}
end
return found
""",
}
SCRIPTS = {name: _HEAD + body for name, body in _BODIES.items()}
"""By what they do."""
