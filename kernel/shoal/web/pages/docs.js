// The document and its operations are found beside this page, whatever path the server is mounted at.
const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

fetch("openapi.json")
  .then((answer) => answer.json())
  .then((spec) =>
    SwaggerUIBundle({
      spec: { ...spec, servers: [{ url: base }] },
      dom_id: "#page",
      deepLinking: true,
      validatorUrl: null, // no badge, which an outside server would draw
      presets: [SwaggerUIBundle.presets.apis],
      layout: "BaseLayout",
    }),
  );
