"""What Redis does for us in one step. A script runs alone, so whatever it reads holds while it writes.

A group is a hash of its members' values and a sorted set of their expiries in milliseconds, since Redis before 7.4
has no expiry for a hash's field. Both keys themselves expire with the member that lives longest. Time is always the
store's, so replicas whose clocks differ agree.
"""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name under which Redis remembers it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # Redis names its scripts so; it protects nothing
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


REPLACE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")
"""KEYS: the value's. ARGV: what it must be, what it becomes, milliseconds to live."""

_GROUPS = """
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function prune(values, expiries, now)
  local erased = 0
  repeat
    -- in portions, for Lua's stack holds some 8,000 arguments
    local dead = redis.call('ZRANGEBYSCORE', expiries, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)
    if #dead > 0 then
      redis.call('HDEL', values, unpack(dead))
      redis.call('ZREM', expiries, unpack(dead))
      erased = erased + #dead
    end
  until #dead < 1000
  return erased
end
local function settle(values, expiries)
  local last = redis.call('ZREVRANGE', expiries, 0, 0, 'WITHSCORES')
  if last[2] then
    local at = string.format('%.0f', last[2])
    redis.call('PEXPIREAT', values, at)
    redis.call('PEXPIREAT', expiries, at)
  end
end
"""

ADD = Script(
    _GROUPS
    + """
local now = now_ms()
prune(KEYS[1], KEYS[2], now)
if ARGV[4] ~= '' and not redis.call('ZSCORE', KEYS[2], ARGV[1])
    and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[3]), ARGV[1])
settle(KEYS[1], KEYS[2])
return 1
"""
)
"""KEYS: the group's two. ARGV: member, value, milliseconds to live, how many may live or nothing."""

REMOVE = Script(
    _GROUPS
    + """
prune(KEYS[1], KEYS[2], now_ms())
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  settle(KEYS[1], KEYS[2])
end
return value
"""
)
"""KEYS: the group's two. ARGV: member. Returns its value."""

MEMBERS = Script(
    _GROUPS
    + """
local now = now_ms()
local found = {}
for i = 1, #KEYS, 2 do
  prune(KEYS[i], KEYS[i + 1], now)
  found[#found + 1] = redis.call('HGETALL', KEYS[i])
end
return found
"""
)
"""KEYS: two of each group. Returns, for each, members and values by turns."""

PRUNE = Script(
    _GROUPS
    + """
local now = now_ms()
local erased = 0
for i = 1, #KEYS, 2 do
  erased = erased + prune(KEYS[i], KEYS[i + 1], now)
end
return erased
"""
)
"""KEYS: two of each group. Returns how many members were erased."""

HIT = Script("""
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local used = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local level, at = string.match(kept, '^(%S+) (%S+)$')
  at = tonumber(at)
  now = math.max(now, at)
  used = math.max(0, tonumber(level) - (now - at) * limit / window)
end
local allowed = 0
if used + math.max(cost, 1) <= limit + 0.000001 then
  allowed = 1
  if cost > 0 then
    used = used + cost
    local life = math.max(1, math.ceil(used * window / limit / 1000))
    redis.call('SET', KEYS[1], string.format('%.17g %.0f', used, now), 'PX', string.format('%.0f', life))
  end
end
return {allowed, string.format('%.17g', used)}
""")
"""KEYS: the counter's. ARGV: limit, window in microseconds, cost. Returns as `rate.fill`: whether allowed, level."""
