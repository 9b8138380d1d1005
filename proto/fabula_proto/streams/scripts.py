"""What must happen at once in Redis, as Lua. Runs on Redis 6.2 and Valkey; none of it blocks.

The done mark of a piece of work, `<stream>:done:<group>:<key>`, holds "<up to> <result>": the newest request id that
the stream had given out when the work was answered, and the id of that answer in the result stream ("-" for none).
A request is answered already when its id is not above `up to`, that is when it was sent before the answer was: then a
second delivery, or a request that a lost connection sent twice, publishes nothing. A request sent after the answer
comes from somebody who never saw it, such as a trainer that was killed and resumed; it is answered again, and the old
answer goes, so that the result stream never holds two for one key. Only ids of one stream are compared, so neither
trimming nor a clock that jumps can lose an answer.
"""

_PRELUDE = """
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function above(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms > b_ms or (a_ms == b_ms and a_seq > b_seq)
end

local function done(mark, id)
  local up_to, result = string.match(redis.call('GET', mark) or '', '^(%S+) (%S+)$')
  return up_to and not above(id, up_to), result
end

-- The last id that the stream gave out; `id` where the stream is gone (FLUSHALL).
local function newest(stream, id)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, info.err and 0 or #info, 2 do
    if info[i] == 'last-generated-id' and above(info[i + 1], id) then return info[i + 1] end
  end
  return id
end

-- Publishes `body` as the answer to request `id`, unless it was answered. Returns the new entry's id or ''.
local function answer(stream, mark, results, id, body, keep_s)
  local answered, result = done(mark, id)
  if answered then return '' end
  if result and result ~= '-' then redis.call('XDEL', results, result) end
  local published = '-'
  if body ~= '' then published = redis.call('XADD', results, '*', 'body', body) end
  redis.call('SET', mark, newest(stream, id) .. ' ' .. published, 'EX', keep_s)
  return published == '-' and '' or published
end

local function settle(stream, errors, group, id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  redis.call('HDEL', errors, id)
end

local function owner(stream, group, id)
  local pending = redis.pcall('XPENDING', stream, group, id, id, 1)
  return pending[1] and pending[1][2] -- an error, as after FLUSHALL, has no first item
end
"""

# KEYS stream, errors, mark  ARGV group, id  ->  1 when this request was answered before; it is settled then.
SKIP_IF_DONE = (
    _PRELUDE
    + """
if not done(KEYS[3], ARGV[2]) then return 0 end
settle(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1
"""
)

# KEYS stream, errors, mark, results  ARGV group, id, body ('' for none), keep_s  ->  id of the published result or ''.
COMPLETE = (
    _PRELUDE
    + """
local published = answer(KEYS[1], KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4])
settle(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return published
"""
)

# KEYS stream, errors, mark, results, dead
# ARGV group, id, body ('' for none), keep_s, consumer, error, deliveries  ->  id of the dead letter or ''.
# Only the owner buries: one that lost its lease may not throw away what another is working on.
BURY = (
    _PRELUDE
    + """
if owner(KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[5] then return '' end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
local fields = found[1] and found[1][2] or {}
local why = {'dead:error', ARGV[6], 'dead:deliveries', ARGV[7], 'dead:origin', ARGV[2], 'dead:group', ARGV[1]}
for _, part in ipairs(why) do fields[#fields + 1] = part end
local letter = redis.call('XADD', KEYS[5], '*', unpack(fields))
if ARGV[3] ~= '' then answer(KEYS[1], KEYS[3], KEYS[4], ARGV[2], ARGV[3], ARGV[4]) end
settle(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return letter
"""
)

# KEYS stream, errors  ARGV group, id, consumer, idle_ms, error  ->  1 when the lease was still ours.
# A delivery that has been idle for a lease is anybody's: setting the idle time sets when it is tried again.
RETRY_LATER = (
    _PRELUDE
    + """
if owner(KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2], 'IDLE', ARGV[4], 'JUSTID')
redis.call('HSET', KEYS[2], ARGV[2], ARGV[5])
return 1
"""
)

# KEYS stream  ARGV group, id, consumer  ->  1 when the lease was still ours and has begun anew.
RENEW = (
    _PRELUDE
    + """
if owner(KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[2], 'JUSTID')
return 1
"""
)

# KEYS stream  ARGV group, consumer  ->  1 when the consumer was removed. One with deliveries pending stays: removing it
# would drop them.
LEAVE = """
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or #pending > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# KEYS stream, dead  ARGV id  ->  the new entry's id, or '' when there is no such dead letter.
REQUEUE = """
local found = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])
if not found[1] then return '' end
local fields = {}
for i = 1, #found[1][2], 2 do
  if string.sub(found[1][2][i], 1, 5) ~= 'dead:' then
    fields[#fields + 1] = found[1][2][i]
    fields[#fields + 1] = found[1][2][i + 1]
  end
end
local id = redis.call('XADD', KEYS[1], '*', unpack(fields))
redis.call('XDEL', KEYS[2], ARGV[1])
return id
"""
