-- Wireshark and tshark read matchd's order entry with this: OUCH 5.0 in both directions, in
-- SoupBinTCP over TCP, and in SoupBinTCP packets and MoldUDP64 over UDP. See docs/wireshark.md.
--
-- Put it into Wireshark's folder of Lua plugins, or: tshark -X lua_script:matchd.lua -r FILE
--
-- Bytes of any kind give a tree, never an error of Lua: every range is checked before it is read,
-- and what is wrong is marked as matchd.malformed. What is well formed and strange is a note,
-- matchd.unusual.

local matchd = Proto("matchd", "matchd order entry")
local ouch = Proto("matchd.ouch", "OUCH 5.0")

-- == Names and meanings ==========================================================================

local INBOUND, OUTBOUND = "in", "out"
local MARKET_UNITS, MARKET_LEAST_UNITS = 2000000000, 0x7FFFFFFF
local PRICE_DECIMALS = 4
local SUMMARIES_MAX = 8

local SIDE = {B = "buy", S = "sell", T = "sell short", E = "sell short exempt"}
local YES_NO = {Y = "yes", N = "no"}
local DECISION = {R = "display refreshed", P = "displayed price changed"}
local PRICE_TYPE = {
  L = "limit", P = "market peg", M = "midpoint peg", R = "primary peg", Q = "market-maker peg",
  m = "midpoint",
}
local STRATEGY = {
  O = "cancel oldest, firm", W = "cancel newest, firm", D = "decrement both, firm",
  Y = "decrement both without details, firm", o = "cancel oldest, organisation",
  w = "cancel newest, organisation", d = "decrement both, organisation",
  y = "decrement both without details, organisation",
}
local CANCEL_REASON = {
  C = "cross cancelled", D = "regulatory", E = "closed",
  F = "post-only would have been slid for NMS", G = "post-only would have traded",
  H = "halted", I = "rest of immediate or cancel", K = "market collars",
  Q = "self-match prevention", S = "supervisory", T = "time in force expired",
  U = "asked for by the user", X = "open protection", Z = "system",
  e = "direct-listing raise over the shares offered",
}
local BROKEN_REASON = {E = "erroneous", C = "consent", S = "supervisory", X = "external"}
local LIQUIDITY = {
  A = "added", R = "removed", J = "non-displayed adding",
  u = "non-displayed adding through a reserve order", k = "added at midpoint",
  m = "removed at midpoint", N = "passive midpoint", n = "midpoint extended life",
  e = "retail added displayed", ["7"] = "added, improves NBBO",
  ["8"] = "added, sets QBBO while joining NBBO", O = "opening cross", C = "closing cross",
  H = "halt or IPO cross", K = "halt cross", i = "after-hours closing cross",
  M = "imbalance-only opening cross", L = "imbalance-only closing cross",
  ["0"] = "supplemental", j = "RPI provides", ["1"] = "RPI provides, no RPII",
  p = "removed price-improving hidden", q = "retail removes midpoint",
  r = "retail removes RPI", t = "retail removes other hidden",
}
local REJECT_REASON = {
  [0x01] = "quote unavailable", [0x02] = "destination closed", [0x03] = "invalid display",
  [0x04] = "invalid max floor", [0x05] = "invalid peg type", [0x06] = "fat finger",
  [0x07] = "halted", [0x08] = "ISO not allowed", [0x09] = "invalid side",
  [0x0A] = "processing error", [0x0B] = "cancel pending", [0x0C] = "firm not authorised",
  [0x0D] = "invalid min quantity", [0x0E] = "no closing reference price", [0x0F] = "other",
  [0x10] = "cancel not allowed", [0x11] = "pegging not allowed", [0x12] = "crossed market",
  [0x13] = "invalid quantity", [0x14] = "invalid cross order", [0x15] = "replace not allowed",
  [0x16] = "routing not allowed", [0x17] = "invalid symbol", [0x18] = "test",
  [0x19] = "late LOC too aggressive", [0x1A] = "retail not allowed",
  [0x1B] = "invalid midpoint post-only price", [0x1C] = "invalid destination",
  [0x1D] = "invalid price", [0x1E] = "shares exceed threshold",
  [0x1F] = "exceeds maximum notional", [0x20] = "risk: aggregate exposure",
  [0x21] = "risk: market impact", [0x22] = "risk: restricted stock",
  [0x23] = "risk: short sell restricted", [0x24] = "risk: ISO not allowed",
  [0x25] = "risk: exceeds ADV limit", [0x26] = "risk: fat finger",
  [0x27] = "risk: locate required", [0x28] = "risk: symbol message rate",
  [0x29] = "risk: port message rate", [0x2A] = "risk: duplicate message rate",
  [0x2B] = "risk: short sell not allowed", [0x2C] = "risk: market order not allowed",
  [0x2D] = "risk: pre-market not allowed", [0x2E] = "risk: post-market not allowed",
  [0x2F] = "risk: short sell exempt not allowed", [0x30] = "risk: single order notional",
  [0x31] = "risk: max quantity", [0x32] = "Reg SHO state not available",
  [0x33] = "risk: IPO market buy", [0x40] = "invalid AIQ",
}

-- A field: label, kind, width in bytes, meanings. Kinds: number, signed, letter, text, price and
-- signed_price (in wire units), time (nanoseconds since midnight), date (nanoseconds since 1970),
-- code (a number with meanings). The names are those of matchd's own decoder.
local FIELDS = {
  timestamp_ns = {"Timestamp", "time", 8},
  user_ref_num = {"UserRefNum", "number", 4},
  orig_user_ref_num = {"OrigUserRefNum", "number", 4},
  next_user_ref_num = {"NextUserRefNum", "number", 4},
  side = {"Side", "letter", 1, SIDE},
  quantity_lots = {"Quantity", "number", 4},
  prevented_lots = {"Quantity Prevented from Trading", "number", 4},
  symbol = {"Symbol", "text", 8},
  firm = {"Firm", "text", 4},
  price_units = {"Price", "price", 8},
  time_in_force = {"Time In Force", "letter", 1, {
    ["0"] = "day", ["1"] = "good till cancelled", ["3"] = "immediate or cancel",
    ["4"] = "fill or kill", ["5"] = "extended hours", ["6"] = "good till time",
    E = "after hours"}},
  display = {"Display", "letter", 1,
             {Y = "visible", N = "hidden", A = "attributable", Z = "conformant"}},
  capacity = {"Capacity", "letter", 1,
              {A = "agency", P = "principal", R = "riskless", O = "other"}},
  iso = {"InterMarket Sweep Eligibility", "letter", 1, YES_NO},
  cross_type = {"CrossType", "letter", 1, {
    N = "continuous", O = "opening", C = "closing", H = "halt or IPO", S = "supplemental",
    R = "retail", E = "extended life", A = "after-hours close"}},
  order_state = {"Order State", "letter", 1, {L = "live", D = "dead"}},
  order_id = {"Order Reference Number", "number", 8},
  match_number = {"Match Number", "number", 8},
  client_order = {"ClOrdID", "text", 14},
  event_code = {"Event Code", "letter", 1, {S = "start of day", E = "end of day"}},
  reason = {"Reason", "letter", 1, CANCEL_REASON},
  reject_reason = {"Reason", "code", 2, REJECT_REASON},
  liquidity = {"Liquidity Flag", "letter", 1, LIQUIDITY},
  strategy = {"AIQ Strategy", "letter", 1, STRATEGY},
}

-- Option tags: name, then as above. 128 to 134 are matchd's own.
local TAGS = {
  [1] = {"secondary_order_id", "SecondaryOrdRefNum", "number", 8},
  [2] = {"firm", "Firm", "text", 4},
  [3] = {"min_quantity_lots", "MinQty", "number", 4},
  [4] = {"customer_type", "CustomerType", "letter", 1,
         {R = "retail designated", N = "not retail", [" "] = "port default"}},
  [5] = {"max_floor_lots", "MaxFloor", "number", 4},
  [6] = {"price_type", "PriceType", "letter", 1, PRICE_TYPE},
  [7] = {"peg_offset_units", "PegOffset", "signed_price", 4},
  [9] = {"discretion_price_units", "DiscretionPrice", "price", 8},
  [10] = {"discretion_price_type", "DiscretionPriceType", "letter", 1, PRICE_TYPE},
  [11] = {"discretion_peg_offset_units", "DiscretionPegOffset", "signed_price", 4},
  [12] = {"post_only", "PostOnly", "letter", 1, {P = "post only", N = "no"}},
  [13] = {"random_reserves_lots", "RandomReserves", "number", 4},
  [14] = {"route", "Route", "text", 4},
  [15] = {"expire_time_s", "ExpireTime (seconds)", "number", 4},
  [16] = {"trade_now", "TradeNow", "letter", 1,
          {Y = "yes", N = "no", [" "] = "port default"}},
  [17] = {"handle_inst", "HandleInst", "letter", 1, {
    I = "imbalance only", O = "retail type 1", T = "retail type 2",
    Q = "retail price improvement", R = "RPI hidden", B = "extended life and continuous",
    D = "direct-listing capital raise", [" "] = "none"}},
  [18] = {"bbo_weight", "BBO Weight Indicator", "letter", 1, {
    ["0"] = "up to 0.2 %", ["1"] = "0.2 to 1 %", ["2"] = "1 to 2 %", ["3"] = "over 2 %",
    S = "sets QBBO, joins NBBO", N = "improves NBBO", [" "] = "unspecified"}},
  [22] = {"display_quantity_lots", "Display Quantity", "number", 4},
  [23] = {"display_price_units", "Display Price", "price", 8},
  [24] = {"group_id", "Group ID", "number", 2},
  [25] = {"shares_located", "Shares Located", "letter", 1, YES_NO},
  [26] = {"locate_broker", "Locate Broker", "text", 4},
  [27] = {"side", "Side", "letter", 1, SIDE},
  [28] = {"user_ref_idx", "UserRefIdx", "number", 1},
  [29] = {"aiq_strategy", "AIQ Strategy", "letter", 1, STRATEGY},
  [30] = {"aiq_group", "AIQ Group ID", "text", 2},
  [128] = {"stop_price_units", "StopPrice", "price", 8},
  [129] = {"trigger", "Trigger", "letter", 1,
           {L = "last trade", B = "best quote", M = "mark"}},
  [130] = {"expire_at_ns", "ExpireAt", "date", 8},
  [131] = {"trail_offset_units", "TrailOffset", "signed_price", 8},
  [132] = {"order_flags", "Flags", "number", 1},
  [133] = {"quantity_quote", "QuantityQuote", "number", 8},
  [134] = {"link_group", "LinkGroup", "number", 4},
}

-- Messages: name, fields, appendage (none, required, optional), its tags, the summary for the
-- Info column. A field "reason=broken" has other meanings than its namesakes.
local MEANINGS = {broken = BROKEN_REASON, restated = DECISION}
local MESSAGES = {
  [INBOUND] = {
    O = {"Enter Order", "user_ref_num side quantity_lots symbol price_units time_in_force "
         .. "display capacity iso cross_type client_order", "required",
         "2 3 4 5 6 7 9 10 11 12 13 14 15 16 17 24 25 26 28 29 30",
         "$user_ref_num: $side $quantity_lots $symbol at $price_units, $time_in_force"},
    U = {"Replace Order Request", "orig_user_ref_num user_ref_num quantity_lots price_units "
         .. "time_in_force display iso client_order", "required",
         "3 5 6 7 9 10 11 12 13 15 16 17 25 26 27 28 29 30",
         "$orig_user_ref_num by $user_ref_num: $quantity_lots at $price_units, $time_in_force"},
    X = {"Cancel Order Request", "user_ref_num quantity_lots", "optional", "28",
         "$user_ref_num to $quantity_lots"},
    M = {"Modify Order Request", "user_ref_num side quantity_lots", "optional", "25 26 28",
         "$user_ref_num: $side $quantity_lots"},
    C = {"Mass Cancel Request", "user_ref_num firm symbol", "required", "24 27 28",
         "$user_ref_num: $symbol"},
    D = {"Disable Order Entry Request", "user_ref_num firm", "required", "28", "$user_ref_num"},
    E = {"Enable Order Entry Request", "user_ref_num firm", "required", "28", "$user_ref_num"},
    Q = {"Account Query Request", "", "optional", "28", ""},
  },
  [OUTBOUND] = {
    S = {"System Event", "timestamp_ns event_code", "none", "", "$event_code"},
    A = {"Order Accepted", "timestamp_ns user_ref_num side quantity_lots symbol price_units "
         .. "time_in_force display order_id capacity iso cross_type order_state client_order",
         "required", "2 3 4 5 6 7 9 10 11 12 13 14 15 16 17 18 24 25 28 29 30",
         "$user_ref_num: $side $quantity_lots $symbol at $price_units, $order_state"},
    U = {"Order Replaced", "timestamp_ns orig_user_ref_num user_ref_num side quantity_lots "
         .. "symbol price_units time_in_force display order_id capacity iso cross_type "
         .. "order_state client_order", "required", "2 3 5 6 12 15 16 17 18 28 29 30",
         "$orig_user_ref_num by $user_ref_num: $side $quantity_lots $symbol at $price_units, "
         .. "$order_state"},
    C = {"Order Canceled", "timestamp_ns user_ref_num quantity_lots reason", "optional", "28",
         "$user_ref_num: $quantity_lots, $reason"},
    D = {"AIQ Canceled", "timestamp_ns user_ref_num quantity_lots reason prevented_lots "
         .. "price_units liquidity strategy", "optional", "28",
         "$user_ref_num: $quantity_lots, $strategy"},
    E = {"Order Executed", "timestamp_ns user_ref_num quantity_lots price_units liquidity "
         .. "match_number", "required", "28",
         "$user_ref_num: $quantity_lots at $price_units, $liquidity"},
    B = {"Broken Trade", "timestamp_ns user_ref_num match_number reason=broken client_order",
         "optional", "28", "$user_ref_num: match $match_number, $reason"},
    J = {"Rejected", "timestamp_ns user_ref_num reject_reason client_order", "optional", "28",
         "$user_ref_num: $reject_reason"},
    P = {"Cancel Pending", "timestamp_ns user_ref_num", "optional", "28", "$user_ref_num"},
    I = {"Cancel Reject", "timestamp_ns user_ref_num", "optional", "28", "$user_ref_num"},
    T = {"Order Priority Update", "timestamp_ns user_ref_num price_units display order_id",
         "optional", "28", "$user_ref_num: at $price_units"},
    M = {"Order Modified", "timestamp_ns user_ref_num side quantity_lots", "optional",
         "25 26 28", "$user_ref_num: $side $quantity_lots"},
    R = {"Order Restated", "timestamp_ns user_ref_num reason=restated", "required",
         "1 22 23 28", "$user_ref_num: $reason"},
    X = {"Mass Cancel Response", "timestamp_ns user_ref_num firm symbol", "required",
         "24 27 28", "$user_ref_num: $symbol"},
    G = {"Disable Order Entry Response", "timestamp_ns user_ref_num firm", "required", "28",
         "$user_ref_num"},
    K = {"Enable Order Entry Response", "timestamp_ns user_ref_num firm", "required", "28",
         "$user_ref_num"},
    Q = {"Account Query Response", "timestamp_ns next_user_ref_num", "optional", "28",
         "next is $next_user_ref_num"},
  },
}

local SOUP_TYPES = {
  ["+"] = "Debug", A = "Login Accepted", J = "Login Rejected", S = "Sequenced Data",
  U = "Unsequenced Data", H = "Server Heartbeat", Z = "End of Session", L = "Login Request",
  R = "Client Heartbeat", O = "Logout Request",
}
local SOUP_SENDERS = {
  A = OUTBOUND, J = OUTBOUND, S = OUTBOUND, H = OUTBOUND, Z = OUTBOUND,
  L = INBOUND, R = INBOUND, O = INBOUND,
}
local LOGIN_REJECTED = {A = "not authorised", S = "session not available"}

-- == Fields ======================================================================================

local fields = {}

-- Filters see numbers as numbers, letters and texts as texts.
local function declare(proto, abbreviation, label, kind, width)
  local filter = proto.name:lower() .. "." .. abbreviation
  local field
  if kind == "letter" or kind == "text" then
    field = ProtoField.string(filter, label)
  elseif kind == "bytes" then
    field = ProtoField.bytes(filter, label)
  elseif kind:find("signed", 1, true) then
    field = width == 4 and ProtoField.int32(filter, label) or ProtoField.int64(filter, label)
  elseif kind == "code" then
    field = ProtoField.uint16(filter, label, base.HEX)
  else
    local makers = {[1] = "uint8", [2] = "uint16", [4] = "uint32", [8] = "uint64"}
    field = ProtoField[makers[width]](filter, label)
  end
  fields[proto.name:lower() .. "." .. abbreviation] = field
  return field
end

local function declare_all()
  local of_ouch = {
    declare(ouch, "type", "Message Type", "letter", 1),
    declare(ouch, "name", "Message", "text", 0),
    declare(ouch, "direction", "Direction", "text", 0),
    declare(ouch, "appendage_length", "Appendage Length", "number", 2),
    declare(ouch, "rest", "What can't be read", "bytes", 0),
    declare(ouch, "option.length", "Length", "number", 1),
    declare(ouch, "option.tag", "OptionTag", "number", 1),
    declare(ouch, "option.unknown", "OptionValue", "bytes", 0),
  }
  for name, spec in pairs(FIELDS) do
    of_ouch[#of_ouch + 1] = declare(ouch, name, spec[1], spec[2], spec[3])
  end
  for _, spec in pairs(TAGS) do
    of_ouch[#of_ouch + 1] = declare(ouch, "option." .. spec[1], spec[2], spec[3], spec[4])
  end
  ouch.fields = of_ouch

  local of_transport = {}
  for _, spec in ipairs({
    {"soup.length", "Packet Length", "number", 2}, {"soup.type", "Packet Type", "letter", 1},
    {"soup.username", "Username", "text", 6}, {"soup.password", "Password", "text", 10},
    {"soup.session", "Session", "text", 10}, {"soup.sequence", "Sequence Number", "text", 20},
    {"soup.heartbeat_timeout_ms", "Heartbeat Timeout (ms)", "text", 5},
    {"soup.reject_reason", "Reject Reason", "letter", 1}, {"soup.text", "Text", "text", 0},
    {"soup.rest", "What can't be read", "bytes", 0},
    {"mold.kind", "Kind", "text", 0}, {"mold.session", "Session", "text", 10},
    {"mold.sequence", "Sequence Number", "number", 8},
    {"mold.count", "Message Count", "number", 2},
    {"mold.message_sequence", "Message's Sequence Number", "number", 8},
    {"mold.message_length", "Message Length", "number", 2},
    {"mold.rest", "What can't be read", "bytes", 0},
  }) do
    of_transport[#of_transport + 1] = declare(matchd, spec[1], spec[2], spec[3], spec[4])
  end
  matchd.fields = of_transport
end

declare_all()

local malformed = ProtoExpert.new("matchd.malformed", "Malformed", expert.group.MALFORMED,
                                  expert.severity.ERROR)
local unusual = ProtoExpert.new("matchd.unusual", "Unusual", expert.group.PROTOCOL,
                                expert.severity.NOTE)
local cut = ProtoExpert.new("matchd.cut", "The capture has not all of it",
                            expert.group.UNDECODED, expert.severity.WARN)
matchd.experts = {malformed, unusual, cut}

-- == Preferences =================================================================================

matchd.prefs.tcp_ports = Pref.range("TCP ports", "9001",
  "Ports of order entry over SoupBinTCP", 65535)
matchd.prefs.udp_ports = Pref.range("UDP ports", "9002",
  "Ports of order entry over UDP", 65535)
matchd.prefs.decimals = Pref.string("Decimals of prices",
  "BTC-USDT=2 ETH-USDT=2 SOL-USDT=2 SHIBUSDT=8",
  "price_decimals of the instruments that have not 4, by wire symbol")
matchd.prefs.heuristics = Pref.bool("Find order entry on other ports", false,
  "Take a conversation that begins with a SoupBinTCP login for matchd's")

local decimals_of = {}
local added = {}

local function read_decimals(text)
  decimals_of = {}
  for symbol, digits in text:gmatch("(%S+)=(%d%d?)") do
    decimals_of[symbol] = tonumber(digits)
  end
end

local function listen(table_name, ports)
  if added[table_name] == ports then
    return
  end
  local ports_table = DissectorTable.get(table_name)
  if added[table_name] then
    ports_table:remove(added[table_name], matchd)
  end
  if ports ~= "" then
    ports_table:add(ports, matchd)
    added[table_name] = ports
  else
    added[table_name] = nil
  end
end

local function take_preferences()
  read_decimals(matchd.prefs.decimals)
  listen("tcp.port", matchd.prefs.tcp_ports)
  listen("udp.port", matchd.prefs.udp_ports)
end

matchd.prefs_changed = take_preferences

-- == What a capture has shown so far =============================================================

-- Which symbol an order has, by conversation and UserRefNum: prices of messages without a symbol
-- have its decimals. A number that is used again in one conversation counts for its last order.
local symbol_of = {}
-- Addresses of venues that heuristics found.
local venue_at = {}
-- The packet that is being read: its conversation, its direction, whether the capture cut it.
local current = {}

function matchd.init()
  symbol_of, venue_at, current = {}, {}, {}
end

local function remember(numbers, channel, symbol)
  local orders = symbol_of[current.conversation]
  if orders == nil then
    orders = {}
    symbol_of[current.conversation] = orders
  end
  for _, number in ipairs(numbers) do
    orders[channel .. ":" .. number] = symbol
  end
end

local function recall(channel, number)
  local orders = symbol_of[current.conversation]
  return orders and orders[channel .. ":" .. number]
end

-- == Values as texts =============================================================================

local function with_decimals(digits, decimals)
  local sign = ""
  if digits:sub(1, 1) == "-" then
    sign, digits = "-", digits:sub(2)
  end
  if decimals == 0 then
    return sign .. digits
  end
  digits = ("0"):rep(decimals + 1 - #digits) .. digits
  return sign .. digits:sub(1, -decimals - 1) .. "." .. digits:sub(-decimals)
end

local function price_text(name, units, symbol)
  local digits = tostring(units)
  if name == "price_units" and #digits == 10 then
    local number = tonumber(digits)
    if number == MARKET_UNITS or number >= MARKET_LEAST_UNITS then
      return "market", "market"
    end
  end
  if name == "price_units" and #digits > 10 then
    return "market", "market"
  end
  local decimals = symbol and decimals_of[symbol] or PRICE_DECIMALS
  local text = with_decimals(digits, decimals)
  return text, symbol and text or text .. " with " .. PRICE_DECIMALS .. " decimals"
end

local function time_text(ns)
  local digits = tostring(ns)
  local seconds = #digits > 9 and tonumber(digits:sub(1, -10)) or 0
  if #digits > 15 or seconds >= 86400 then
    return nil
  end
  local fraction = ("0"):rep(9 - #digits) .. digits:sub(-9)
  return string.format("%02d:%02d:%02d.%s", math.floor(seconds / 3600),
                       math.floor(seconds / 60) % 60, seconds % 60, fraction)
end

local function date_text(ns)
  local digits = tostring(ns)
  local seconds = #digits > 9 and tonumber(digits:sub(1, -10)) or 0
  local fraction = ("0"):rep(9 - #digits) .. digits:sub(-9)
  return os.date("!%Y-%m-%d %H:%M:%S", math.floor(seconds)) .. "." .. fraction .. " UTC"
end

local function printable(text)
  return (text:gsub("[^\32-\126]", "?"))
end

local function unpadded(range)
  return (printable(range:raw()):gsub("^ +", ""):gsub(" +$", ""))
end

-- The value of a field: what the tree shows after its label, what the summary shows, and a note
-- where the value means nothing.
local function explain(name, kind, range, meanings, symbol)
  if kind == "text" then
    local text = unpadded(range)
    return text == "" and "(blank)" or text, text == "" and "all" or text
  elseif kind == "letter" then
    local letter = range:raw()
    local meaning = meanings[letter]
    local note = not meaning and "no meaning of " .. printable(letter) .. " is known" or nil
    local shown = printable(letter)
    return meaning and shown .. " (" .. meaning .. ")" or shown, meaning or shown, note
  elseif kind == "code" then
    local code = range:uint()
    local meaning = meanings[code] or code >= 0x8000 and "private" or nil
    local shown = string.format("0x%04X", code)
    local note = not meaning and "no meaning of " .. shown .. " is known" or nil
    return shown .. " (" .. (meaning or "unknown") .. ")", meaning or shown, note
  elseif kind == "price" or kind == "signed_price" then
    local units = kind == "price" and range:uint64() or range:int64()
    local short, long = price_text(name, units, symbol)
    return tostring(units) .. " (" .. long .. ")", short
  elseif kind == "time" then
    local text = time_text(range:uint64())
    local note = not text and "not a time of day" or nil
    return tostring(range:uint64()) .. (text and " (" .. text .. ")" or ""), text or "?", note
  elseif kind == "date" then
    return tostring(range:uint64()) .. " (" .. date_text(range:uint64()) .. ")", "?"
  end
  local number = tostring(range:uint64())
  return number, number
end

-- == OUCH ========================================================================================

local function prepare(letter, row)
  local message = {letter = letter, name = row[1], appendage = row[3], tags = {},
                   summary = row[5], fields = {}, fixed_bytes = 1}
  for word in row[2]:gmatch("%S+") do
    local name, other = word:match("^([%w_]+)=?(%w*)$")
    local spec = FIELDS[name]
    message.fields[#message.fields + 1] = {
      name = name, label = spec[1], kind = spec[2], width = spec[3],
      meanings = MEANINGS[other] or spec[4], offset = message.fixed_bytes}
    message.fixed_bytes = message.fixed_bytes + spec[3]
  end
  for tag in row[4]:gmatch("%d+") do
    message.tags[tonumber(tag)] = true
  end
  return message
end

for _, messages in pairs(MESSAGES) do
  for letter, row in pairs(messages) do
    messages[letter] = prepare(letter, row)
  end
end

-- What the capture has cut off is not the sender's mistake.
local function complain(item, ...)
  item:add_proto_expert_info(current.cut and cut or malformed, table.concat({...}))
end

-- Which symbol's decimals the prices of this message have: its own, or its order's.
local function symbol_of_message(range, message, channel)
  local numbers, symbol, first = {}, nil, nil
  for _, field in ipairs(message.fields) do
    if field.name == "symbol" then
      symbol = unpadded(range:range(field.offset, field.width))
    elseif field.name:find("user_ref_num", 1, true) and field.name ~= "next_user_ref_num" then
      numbers[#numbers + 1] = tostring(range:range(field.offset, field.width):uint())
      first = first or numbers[1]
    end
  end
  if symbol and message.name:find("Mass", 1, true) == nil then
    remember(numbers, channel, symbol)
  elseif first then
    symbol = recall(channel, first)
    if symbol and #numbers > 1 then
      remember(numbers, channel, symbol)
    end
  end
  return symbol
end

-- The UserRefIdx in an appendage that may be broken.
local function channel_of(range, from)
  local offset = from + 2
  while offset + 3 <= range:len() do
    local length = range:range(offset, 1):uint()
    if range:range(offset + 1, 1):uint() == 28 and length == 2 then
      return range:range(offset + 2, 1):uint()
    end
    offset = offset + 1 + length
  end
  return 0
end

local function add_value(tree, prefix, spec, range, symbol)
  local shown, short, note = explain(spec.name, spec.kind, range, spec.meanings, symbol)
  local field = fields["matchd.ouch." .. prefix .. spec.name]
  local item = spec.kind == "text" and tree:add(field, range, unpadded(range))
               or tree:add(field, range)
  item:set_text(spec.label .. ": " .. shown)
  if note then
    item:add_proto_expert_info(unusual, note)
  end
  return short, shown
end

local function add_option(tree, range, message, seen, symbol)
  local length, number = range:range(0, 1):uint(), range:range(1, 1):uint()
  local spec = TAGS[number]
  local label = spec and spec[2] or "Option " .. number
  local item = tree:add(range, label)
  item:add(fields["matchd.ouch.option.length"], range:range(0, 1))
  local tag_item = item:add(fields["matchd.ouch.option.tag"], range:range(1, 1))
  tag_item:append_text(" (" .. (spec and spec[2] or "unknown") .. ")")
  local known = spec and length - 1 == spec[4]
  if known and not seen[number] then
    local shape = {name = spec[1], label = spec[2], kind = spec[3], meanings = spec[5]}
    local _, shown = add_value(item, "option.", shape, range:range(2, spec[4]), symbol)
    item:append_text(": " .. shown)
  elseif length > 1 then
    item:add(fields["matchd.ouch.option.unknown"], range:range(2, length - 1))
  end
  if spec and not known then
    complain(item, label, " has ", length - 1, " bytes, not ", spec[4])
  elseif spec and seen[number] then
    complain(item, label, " comes twice")
  elseif not message.tags[number] then
    item:add_proto_expert_info(unusual, message.name .. " does not list this tag")
  end
  seen[number] = true
end

-- The appendage is `range`, without its length field.
local function add_options(tree, range, message, symbol)
  local offset, seen = 0, {}
  while offset < range:len() do
    local length = range:range(offset, 1):uint()
    if length == 0 or offset + 1 + length > range:len() then
      local item = tree:add(fields["matchd.ouch.rest"], range:range(offset))
      complain(item, length == 0 and "an element of length 0" or "an element of " .. length
               .. " bytes, where " .. range:len() - offset - 1 .. " follow")
      return
    end
    add_option(tree, range:range(offset, 1 + length), message, seen, symbol)
    offset = offset + 1 + length
  end
end

local function add_appendage(tree, range, message, symbol)
  local offset, rest = message.fixed_bytes, range:len() - message.fixed_bytes
  if message.appendage == "none" or rest < 2 then
    if rest > 0 then
      local item = tree:add(fields["matchd.ouch.rest"], range:range(offset))
      complain(item, rest, " bytes too many")
    elseif message.appendage == "required" then
      complain(tree, "the Appendage Length is missing")
    end
    return
  end
  local length = range:range(offset, 2):uint()
  local item = tree:add(fields["matchd.ouch.appendage_length"], range:range(offset, 2))
  if length ~= rest - 2 then
    complain(item, "the Appendage Length is ", length, ", but ", rest - 2, " bytes follow")
  end
  if rest > 2 then
    add_options(tree, range:range(offset + 2), message, symbol)
  end
end

local function name_message(tree, range, message, direction)
  local item = tree:add(fields["matchd.ouch.type"], range:range(0, 1))
  item:append_text(message and " (" .. message.name .. ")" or " (unknown)")
  tree:add(fields["matchd.ouch.direction"], direction):set_generated()
  if message then
    tree:add(fields["matchd.ouch.name"], message.name):set_generated()
  end
  return item
end

-- Adds one message to the tree; returns its summary.
local function read_ouch(range, tree, direction)
  local parent = tree
  tree = parent:add(ouch, range, "OUCH 5.0")
  local letter = range:range(0, 1):raw()
  local message = MESSAGES[direction][letter]
  local type_item = name_message(tree, range, message, direction)
  if message == nil then
    complain(type_item, "no message ", printable(letter), " comes from this side")
    if range:len() > 1 then
      tree:add(fields["matchd.ouch.rest"], range:range(1))
    end
    return "Unknown Message " .. printable(letter)
  end
  tree:append_text(", " .. message.name)
  if range:len() < message.fixed_bytes then
    complain(type_item, message.name, " has ", range:len(), " bytes, not ", message.fixed_bytes)
    if range:len() > 1 then
      tree:add(fields["matchd.ouch.rest"], range:range(1))
    end
    return message.name .. " [cut]"
  end
  local channel = channel_of(range, message.fixed_bytes)
  local symbol = symbol_of_message(range, message, channel)
  local shown = {}
  for _, field in ipairs(message.fields) do
    shown[field.name] = add_value(tree, "", field, range:range(field.offset, field.width), symbol)
  end
  add_appendage(tree, range, message, symbol)
  local summary = message.summary:gsub("%$([%w_]+)", shown)
  summary = summary == "" and message.name or message.name .. " " .. summary
  summary = channel == 0 and summary or summary .. ", channel " .. channel
  tree:set_text("OUCH 5.0, " .. summary)
  return summary
end

-- == SoupBinTCP ==================================================================================

local function add_soup_texts(tree, range, specs)
  local offset = 3
  for _, spec in ipairs(specs) do
    local name, width = spec[1], spec[2]
    if offset + width <= range:len() then
      local text = range:range(offset, width)
      tree:add(fields["matchd.soup." .. name], text, unpadded(text))
    end
    offset = offset + width
  end
end

local LOGIN = {{"username", 6}, {"password", 10}, {"session", 10}, {"sequence", 20},
               {"heartbeat_timeout_ms", 5}}
local ACCEPTED = {{"session", 10}, {"sequence", 20}}
-- Which lengths a packet may have, its length field included; others carry any payload.
local SOUP_BYTES = {A = {33}, J = {4}, H = {3}, Z = {3}, L = {49, 54}, R = {3}, O = {3}}

local function fits(letter, bytes)
  local wanted = SOUP_BYTES[letter]
  return wanted == nil or bytes == wanted[1] or bytes == wanted[2]
end

local function add_soup_payload(tree, range, letter)
  if letter == "L" then
    add_soup_texts(tree, range, LOGIN)
    return "Login Request " .. unpadded(range:range(3, 6))
  elseif letter == "A" then
    add_soup_texts(tree, range, ACCEPTED)
    return "Login Accepted, next is " .. unpadded(range:range(13, 20))
  elseif letter == "J" then
    local reason = range:range(3, 1):raw()
    local item = tree:add(fields["matchd.soup.reject_reason"], range:range(3, 1))
    item:append_text(" (" .. (LOGIN_REJECTED[reason] or "unknown") .. ")")
    return "Login Rejected, " .. (LOGIN_REJECTED[reason] or printable(reason))
  elseif letter == "+" and range:len() > 3 then
    tree:add(fields["matchd.soup.text"], range:range(3))
    return "Debug " .. printable(range:range(3):raw())
  end
  return SOUP_TYPES[letter]
end

-- Adds one packet, which `range` is exactly; returns its summary.
local function read_soup_packet(range, parent, direction)
  local tree = parent:add(matchd, range, "SoupBinTCP Packet")
  tree:add(fields["matchd.soup.length"], range:range(0, 2))
  if range:len() < 3 then
    complain(tree, "a packet without a type")
    return "Packet without a type"
  end
  local letter = range:range(2, 1):raw()
  local item = tree:add(fields["matchd.soup.type"], range:range(2, 1))
  item:append_text(" (" .. (SOUP_TYPES[letter] or "unknown") .. ")")
  if SOUP_TYPES[letter] == nil then
    complain(item, "no packet ", printable(letter), " is known")
  elseif (SOUP_SENDERS[letter] or direction) ~= direction then
    complain(item, SOUP_TYPES[letter], " does not come from this side")
  elseif not fits(letter, range:len()) then
    complain(item, SOUP_TYPES[letter], " with ", range:len(), " bytes")
  elseif letter == "S" or letter == "U" then
    tree:append_text(", " .. SOUP_TYPES[letter])
    if range:len() > 3 then
      return read_ouch(range:range(3), parent, direction)
    end
    complain(item, "no message in it")
    return SOUP_TYPES[letter] .. " without a message"
  else
    tree:append_text(", " .. SOUP_TYPES[letter])
    return add_soup_payload(tree, range, letter)
  end
  if range:len() > 3 then
    tree:add(fields["matchd.soup.rest"], range:range(3))
  end
  return "Packet " .. printable(letter) .. " [malformed]"
end

-- == Datagrams ===================================================================================

-- Adds the packets of a datagram; returns their summaries.
local function read_soup_datagram(range, tree, direction)
  local offset, summaries = 0, {}
  while offset < range:len() do
    local rest = range:len() - offset
    local bytes = rest >= 2 and 2 + range:range(offset, 2):uint() or 2
    if bytes > rest then
      local item = tree:add(fields["matchd.soup.rest"], range:range(offset))
      complain(item, "a packet of ", bytes, " bytes, where ", rest, " are left")
      summaries[#summaries + 1] = "[malformed]"
      return summaries
    end
    local packet = range:range(offset, bytes)
    summaries[#summaries + 1] = read_soup_packet(packet, tree, direction)
    offset = offset + bytes
  end
  return summaries
end

local function add_blocks(range, tree, first, count)
  local offset, summaries = 20, {}
  for index = 0, count - 1 do
    local rest = range:len() - offset
    local length = rest >= 2 and range:range(offset, 2):uint() or 0
    if rest < 2 or length > rest - 2 then
      complain(tree, "message ", index + 1, " of ", count, " is not all here")
      break
    end
    local block = tree:add(range:range(offset, 2 + length), "Message " .. index + 1)
    block:add(fields["matchd.mold.message_sequence"], first + index):set_generated()
    block:add(fields["matchd.mold.message_length"], range:range(offset, 2))
    offset = offset + 2
    if length > 0 then
      summaries[#summaries + 1] = read_ouch(range:range(offset, length), tree, OUTBOUND)
    else
      complain(block, "no message in it")
    end
    offset = offset + length
  end
  if offset < range:len() then
    local item = tree:add(fields["matchd.mold.rest"], range:range(offset))
    complain(item, range:len() - offset, " bytes after the last message")
  end
  return summaries
end

local function mold_kind(direction, count)
  if direction == INBOUND then
    return "Request"
  end
  return count == 0 and "Heartbeat" or count == 0xFFFF and "End of Session" or "Messages"
end

local function check_mold(range, item, kind, count)
  if kind ~= "Messages" and range:len() > 20 then
    complain(item, range:len() - 20, " bytes too many")
  elseif kind == "Request" and (count == 0 or count == 0xFFFF) then
    item:add_proto_expert_info(unusual, "a request for " .. count .. " messages")
  end
end

local function read_mold(range, parent, direction)
  local tree = parent:add(matchd, range, "MoldUDP64")
  if range:len() < 20 then
    local item = tree:add(fields["matchd.mold.rest"], range)
    complain(item, "MoldUDP64 with ", range:len(), " bytes")
    return {"[malformed]"}
  end
  local first, count = range:range(10, 8):uint64(), range:range(18, 2):uint()
  local kind = mold_kind(direction, count)
  tree:add(fields["matchd.mold.kind"], kind):set_generated()
  local session = tree:add(fields["matchd.mold.session"], range:range(0, 10),
                           unpadded(range:range(0, 10)))
  if range:range(0, 10):raw():find("[^\32-\126]") then
    complain(session, "the session is no text")
  end
  tree:add(fields["matchd.mold.sequence"], range:range(10, 8))
  local item = tree:add(fields["matchd.mold.count"], range:range(18, 2))
  check_mold(range, item, kind, count)
  tree:append_text(", " .. kind .. ", " .. tostring(first))
  if kind == "Messages" then
    return add_blocks(range, parent, first, count)
  elseif range:len() > 20 then
    tree:add(fields["matchd.mold.rest"], range:range(20))
  end
  return {kind == "Request" and "Request for " .. count .. " from " .. tostring(first)
          or kind .. ", next is " .. tostring(first)}
end

local function show_summaries(pinfo, summaries)
  local shown = {#summaries == 0 and "[malformed]" or nil}
  for index = 1, math.min(#summaries, SUMMARIES_MAX) do
    shown[index] = summaries[index]
  end
  if #summaries > SUMMARIES_MAX then
    shown[#shown + 1] = #summaries - SUMMARIES_MAX .. " more"
  end
  pinfo.cols.info:set(table.concat(shown, " | "))
end

local function note_cut(tvb, tree)
  current.cut = tvb:reported_len() > tvb:len()
  if current.cut then
    tree:add_proto_expert_info(cut)
  end
end

local function read_datagram(tvb, pinfo, tree, direction)
  pinfo.cols.protocol:set("MATCHD")
  local range = tvb:range()
  local root = tree:add(matchd, range)
  note_cut(tvb, root)
  local is_mold = range:range(0, 1):uint() >= 0x20
  local read = is_mold and read_mold or read_soup_datagram
  show_summaries(pinfo, read(range, root, direction))
end

-- == TCP =========================================================================================

local function packet_bytes(tvb, _, offset)
  return 2 + tvb:range(offset, 2):uint()
end

local function read_packet(tvb, _, tree)
  note_cut(tvb, tree)
  local summary = read_soup_packet(tvb:range(), tree, current.direction)
  current.summaries[#current.summaries + 1] = summary
  return tvb:len()
end

local function read_segment(tvb, pinfo, tree, direction)
  current.direction, current.summaries = direction, {}
  local whole = pcall(dissect_tcp_pdus, tvb, tree, 2, packet_bytes, read_packet)
  if not whole then
    tree:add(matchd, tvb:range()):add_proto_expert_info(cut)
  end
  if #current.summaries > 0 then
    pinfo.cols.protocol:set("MATCHD")
    show_summaries(pinfo, current.summaries)
  end
end

-- == Doors =======================================================================================

local PORT_TCP = 2

local function is_ours(port)
  for first, last in matchd.prefs.tcp_ports:gmatch("(%d+)%-?(%d*)") do
    if port >= tonumber(first) and port <= (tonumber(last) or tonumber(first)) then
      return true
    end
  end
  return false
end

local function place(address, port)
  return tostring(address) .. " " .. port
end

-- The venue is where heuristics found it, else at the port that brought us here.
local function direction_of(pinfo)
  if venue_at[place(pinfo.dst, pinfo.dst_port)] then
    return INBOUND
  elseif venue_at[place(pinfo.src, pinfo.src_port)] then
    return OUTBOUND
  end
  return pinfo.dst_port == pinfo.match_uint and INBOUND or OUTBOUND
end

-- Takes note of whose packet this is; returns its direction.
local function begin(pinfo)
  local direction = direction_of(pinfo)
  local source, target = place(pinfo.src, pinfo.src_port), place(pinfo.dst, pinfo.dst_port)
  local pair = direction == INBOUND and {source, target} or {target, source}
  current.conversation = table.concat(pair, " ")
  return direction
end

function matchd.dissector(tvb, pinfo, tree)
  if tvb:len() == 0 then
    return 0
  end
  local direction = begin(pinfo)
  if pinfo.port_type == PORT_TCP then
    read_segment(tvb, pinfo, tree, direction)
  else
    read_datagram(tvb, pinfo, tree, direction)
  end
end

-- What Wireshark's own SoupBinTCP has in a Sequenced or Unsequenced packet, on our ports.
local function read_in_soupbin(tvb, pinfo, tree)
  if tvb:len() == 0 or not (is_ours(pinfo.match_uint) or matchd.prefs.heuristics) then
    return false
  end
  local direction = begin(pinfo)
  note_cut(tvb, tree)
  pinfo.cols.info:set(read_ouch(tvb:range(), tree, direction))
  return true
end

-- A login is the only thing that says for sure what it is: its length, its letter, and a number
-- in digits and blanks.
local function is_login(tvb)
  local bytes = tvb:len()
  if bytes ~= 49 and bytes ~= 54 or tvb:range(0, 2):uint() ~= bytes - 2 then
    return false
  end
  return tvb:range(2, 1):raw() == "L" and tvb:range(29, 20):raw():find("^ *%d* *$") ~= nil
end

local function guess(tvb, pinfo, tree)
  if not matchd.prefs.heuristics or not is_login(tvb) then
    return false
  end
  venue_at[place(pinfo.dst, pinfo.dst_port)] = true
  pinfo.conversation = matchd
  matchd.dissector(tvb, pinfo, tree)
  return true
end

matchd:register_heuristic("tcp", guess)
matchd:register_heuristic("udp", guess)
-- Who has TCP read by Wireshark's own SoupBinTCP ("Decode As") finds our messages in its packets.
pcall(function() ouch:register_heuristic("soupbintcp", read_in_soupbin) end)
take_preferences()
