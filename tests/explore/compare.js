// Compares counts of the page's script with those in a file of JSON lines: node compare.js FILE. Prints a summary as JSON.
const fs = require("fs"), Count = require("../../analysis/explore/count.js");
const rows = fs.readFileSync(process.argv[2], "utf8").trim().split("\n").map(JSON.parse);
const differences = [];
for (const { spec, counts } of rows) {
  const { quantities, lengths, stages } = Count.count(spec);
  const text = lengths.map((n, k) => `${k}:${n}`).filter((pair) => !pair.endsWith(":0")).join(",");
  const found = require("crypto").createHash("sha256").update(text).digest("hex");
  const page = { ...quantities, n_paths: String(quantities.n_paths), path_lengths: found, fields: stages.map((s) => [s.all, s.bare]) };
  for (const [name, value] of Object.entries(counts)) {
    const mine = JSON.stringify(page[name]), theirs = JSON.stringify(value);
    if (mine !== theirs) differences.push({ spec, name, mine, theirs });
  }
}
console.log(JSON.stringify({ n: rows.length, differences: differences.length, first: differences.slice(0, 5) }));
