// Routes as the settings write them: hops as tcp://host:port/IDENTIFIER, joined by commas.

// parseRoute splits a route into its hops: {address, id}.
export function parseRoute(route) {
  return String(route || "")
    .split(",")
    .filter((hop) => hop !== "")
    .map((hop) => {
      const match = /^[a-z]+:\/\/([^/]+)\/(.+)$/.exec(hop);
      return match ? { address: match[1], id: match[2] } : { address: hop, id: "" };
    });
}

// routeName is a route by its addresses alone. An outlet's channel says behind it at
// which address of the last relay's it came, which is in that relay's place.
export function routeName(route) {
  const [hops, at] = String(route || "").split(" at ");
  const names = parseRoute(hops).map((hop) => hop.address);
  if (at && names.length > 0) names[names.length - 1] = at;
  return names.join(" → ");
}
