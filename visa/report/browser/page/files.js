"use strict";
// Data come as scripts, because a page on the disk may not fetch: each calls `arrived` with its own name and its value.
const visaBrowser = (() => {
  const values = new Map();
  const asked = new Map();

  function arrived(name, value) {
    values.set(name, value);
  }

  /** The value of a script of data, loaded at the first call. Rejects if the file is not there. */
  function load(name) {
    if (!asked.has(name)) asked.set(name, added(name));
    return asked.get(name);
  }

  function added(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = name;
      script.onload = () => {
        script.remove();
        resolve(values.get(name));
        values.delete(name);
      };
      script.onerror = () => reject(new Error(`${name} cannot be read: build the browser again.`));
      document.head.append(script);
    });
  }

  return { arrived, load };
})();
