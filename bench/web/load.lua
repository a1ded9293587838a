-- Request one URL with the cookies of a file in turn, one per line: wrk -s load.lua URL -- FILE

local requests = {}
local sent = 0

function init(args)
   for cookie in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", nil, {["Cookie"] = cookie})
   end
end

function request()
   sent = sent + 1
   return requests[sent % #requests + 1]
end

function done(summary)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   local report = '{"requests": %d, "microseconds": %d, "failed": %d}'
   print(string.format(report, summary.requests, summary.duration, failed))
end
