# Builds $(obj)/built-in.a out of the objects that $(obj)/Makefile lists in obj-y.
include $(obj)/Makefile
objects := $(addprefix $(obj)/,$(obj-y))
space := $(subst ,, )

cmd_compile = $(CC) $(CFLAGS) -Wp,-MMD,$(obj)/.$(@F).d -c -o $@ $<
cmd_archive = $(AR) cDPrST $@ $(objects)

# $(call if_changed,NAME): runs cmd_NAME where a prerequisite is newer or the command is not the one of last time.
differs = $(filter-out $(subst $(space),_,$(strip $(saved_$@))),$(subst $(space),_,$(strip $(cmd_$(1)))))
define if_changed
$(if $(filter-out FORCE,$?)$(differs),$(cmd_$(1))
	@echo 'saved_$@ := $(cmd_$(1))' >$(obj)/.$(@F).cmd)
endef

$(obj)/built-in.a: $(objects) FORCE
	$(call if_changed,archive)
$(objects): $(obj)/%.o: $(obj)/%.c FORCE
	$(call if_changed,compile)
FORCE:
.PHONY: FORCE

-include $(wildcard $(obj)/.*.cmd $(obj)/.*.d)
