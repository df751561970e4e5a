// Shows the document that this server gives: of the chat API, or of the operator's beside it.
const ofOperators = new URLSearchParams(location.search).get("of") === "operators";
SwaggerUIBundle({
  dom_id: "#document",
  url: new URL(ofOperators ? "../admin/v1/openapi.json" : "openapi.json", location.href).href,
  validatorUrl: null,
  queryConfigEnabled: false,
  deepLinking: true,
  tryItOutEnabled: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
});
