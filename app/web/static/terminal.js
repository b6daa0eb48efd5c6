// The same from a terminal and from Python.

import { hasKey } from "./key.js";

export function curl(name, query, file) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  // In curl's own syntax, some characters end a file's name unless it is quoted.
  const part = /[;,"\\]/.test(name) ? `file=@"${name.replace(/(["\\])/g, "\\$1")}"` : `file=@${name}`;
  const plain = /^[\w.@=-]+$/.test(part) ? part : quoted(part);
  const url = new URL(`enhance?${new URLSearchParams(query)}`, location.href);
  const key = hasKey() ? '-H "Authorization: Bearer $SUPERRES_KEY" ' : "";
  return `curl ${key}-F ${plain} ${quoted(url.href)} -o ${quoted(file)}`;
}

export function python(name, query, file) {
  const NUMBERS = ["scale", "width", "height", "quality"];
  const given = Object.entries(query).map(([parameter, value]) => {
    if (value === "true") return `${parameter}=True`;
    return `${parameter}=${NUMBERS.includes(parameter) ? Number(value) : JSON.stringify(value)}`;
  });
  const url = new URL("./", location.href).href.replace(/\/$/, "");
  const key = hasKey() ? ', key=os.environ["SUPERRES_KEY"]' : "";
  return [
    ...(hasKey() ? ["import os"] : []),
    "from pathlib import Path",
    "from superres.client import Client",
    "",
    `with Client(${JSON.stringify(url)}${key}) as client:`,
    `    enhanced = client.enhance(${[`Path(${JSON.stringify(name)})`, ...given].join(", ")})`,
    `    enhanced.save(Path(${JSON.stringify(file)}))`,
  ].join("\n");
}
