; From a multiboot loader to a 32-bit system of its own tables, without paging: the exception stubs, the way into a check's code
; and back. The layouts of `enter` and `caught` are struct machine_state and struct catch of guest.h.

MAGIC   equ 0x1badb002
FLAGS   equ 1 << 16                     ; addresses below
KCODE   equ 0x08
KDATA   equ 0x10
KCODE16 equ 0x28
KDATA16 equ 0x30
TSS     equ 0x38
DF_TSS  equ 0x40

; Members of machine_state and catch, 4 bytes each.
AX_     equ 0
CX_     equ 4
DX_     equ 8
BX_     equ 12
SP_     equ 16
BP_     equ 20
SI_     equ 24
DI_     equ 28
IP_     equ 32
FLAGS_  equ 36
CS_     equ 40
SS_     equ 44
DS_     equ 48
ES_     equ 52
FS_     equ 56
GS_     equ 60
FRAME_  equ 64
VECTOR_ equ 68
ERROR_  equ 72
HFLAGS_ equ 76
HCS_    equ 80
HSS_    equ 84

        extern image_end, bss_end, guest_main
        global start, gdt, idt, tss, df_tss, vector_stubs, narrow_stub, task_stubs, enter, caught
        global enter_real, real_image, real_image_end

        section .boot exec alloc
        bits 32
        align 4
header: dd MAGIC, FLAGS, -(MAGIC + FLAGS)
        dd header, header, image_end, bss_end, start

start:  cli
        cld
        mov esp, stack_top
        mov al, 0xff                    ; both interrupt controllers masked
        out 0x21, al
        out 0xa1, al
        lgdt [gdt_register]
        jmp KCODE:.own
.own:   mov eax, KDATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        xor eax, eax
        mov fs, ax
        mov gs, ax
        lldt ax
        mov eax, cr4
        or eax, 3 << 9                  ; OSFXSR, OSXMMEXCPT
        mov cr4, eax
        mov eax, 0x33                   ; NE, ET, MP, PE
        mov cr0, eax

        mov eax, tss
        mov ebx, gdt + TSS
        call set_base
        mov eax, df_tss
        mov ebx, gdt + DF_TSS
        call set_base
        mov dword [tss + 4], esp0_top
        mov dword [tss + 8], KDATA
        mov dword [tss + 0x64], 0x68 << 16      ; no I/O bitmap
        mov dword [df_tss + 0x20], task_stubs + 8 * 16
        mov dword [df_tss + 0x24], 2
        mov dword [df_tss + 0x38], df_stack_top
        mov dword [df_tss + 0x48], KDATA
        mov dword [df_tss + 0x4c], KCODE
        mov dword [df_tss + 0x50], KDATA
        mov dword [df_tss + 0x54], KDATA
        mov dword [df_tss + 0x64], 0x68 << 16
        mov eax, TSS
        ltr ax
        fninit
        call guest_main

set_base:
        mov [ebx + 2], ax
        shr eax, 16
        mov [ebx + 4], al
        mov [ebx + 7], ah
        ret

        section .text
; void enter(const struct machine_state* state): goes there; comes back when a vector is taken, with `caught` filled.
enter:  push ebx
        push ebp
        push esi
        push edi
        pushfd
        mov [harness_esp], esp
        mov eax, [esp + 24]
        test byte [eax + FLAGS_ + 2], 2
        jz .protected
        push dword [eax + GS_]          ; virtual-8086 mode
        push dword [eax + FS_]
        push dword [eax + DS_]
        push dword [eax + ES_]
        push dword [eax + SS_]
        push dword [eax + SP_]
        push dword [eax + FLAGS_]
        push dword [eax + CS_]
        push dword [eax + IP_]
        push dword [eax + AX_]
        push dword KDATA
        jmp .registers
.protected:
        test byte [eax + CS_], 3
        jz .kernel
        push dword [eax + SS_]
        push dword [eax + SP_]
        jmp .frame
.kernel:
        mov ecx, [eax + SP_]
        mov [new_stack], ecx
        mov ecx, [eax + SS_]
        mov [new_stack + 4], cx
        lss esp, [new_stack]
.frame: push dword [eax + FLAGS_]
        push dword [eax + CS_]
        push dword [eax + IP_]
        push dword [eax + AX_]
        push dword [eax + DS_]
        mov es, [eax + ES_]
        mov fs, [eax + FS_]
        mov gs, [eax + GS_]
.registers:
        mov ecx, [eax + CX_]
        mov edx, [eax + DX_]
        mov ebx, [eax + BX_]
        mov ebp, [eax + BP_]
        mov esi, [eax + SI_]
        mov edi, [eax + DI_]
        pop ds
        pop eax
        iretd

; One stub for each vector, 16 bytes apart.
        align 16
vector_stubs:
%assign i 0
%rep 256
        push dword i
        jmp near taken
        align 16
%assign i i + 1
%endrep

taken:  push eax                        ; on whatever stack this is
        push ecx
        push edx
        push ebx
        push ebp
        push esi
        push edi
        push ds
        push es
        push fs
        push gs
        mov eax, KDATA
        mov ds, ax
        pushfd
        pop dword [caught + HFLAGS_]
        mov [caught + HCS_], cs
        mov [caught + HSS_], ss
        pop dword [caught + GS_]
        pop dword [caught + FS_]
        pop dword [caught + ES_]
        pop dword [caught + DS_]
        movzx ecx, word [caught + DS_]
        mov [caught + 88], ecx          ; the same, in the handler
        mov [caught + DS_], ecx
        movzx ecx, word [caught + ES_]
        mov [caught + 92], ecx
        mov [caught + ES_], ecx
        movzx ecx, word [caught + FS_]
        mov [caught + 96], ecx
        mov [caught + FS_], ecx
        movzx ecx, word [caught + GS_]
        mov [caught + 100], ecx
        mov [caught + GS_], ecx
        pop dword [caught + DI_]
        pop dword [caught + SI_]
        pop dword [caught + BP_]
        pop dword [caught + BX_]
        pop dword [caught + DX_]
        pop dword [caught + CX_]
        pop dword [caught + AX_]
        pop ecx
        mov [caught + VECTOR_], ecx
        mov [caught + FRAME_], esp
        mov dword [caught + ERROR_], 0
        cmp ecx, 32
        jae .frame
        mov eax, 0x227d00               ; vectors with an error code
        bt eax, ecx
        jnc .frame
        pop dword [caught + ERROR_]
.frame: pop dword [caught + IP_]
        pop dword [caught + CS_]
        pop dword [caught + FLAGS_]
        test byte [caught + FLAGS_ + 2], 2
        jnz .v8086
        mov eax, cs
        xor eax, [caught + CS_]
        test eax, 3
        jz .same
        pop dword [caught + SP_]
        pop dword [caught + SS_]
        jmp back
.v8086: pop dword [caught + SP_]
        pop dword [caught + SS_]
        pop dword [caught + ES_]
        pop dword [caught + DS_]
        pop dword [caught + FS_]
        pop dword [caught + GS_]
        jmp back
.same:  mov [caught + SP_], esp
        mov eax, ss
        mov [caught + SS_], eax

back:   mov eax, KDATA
        mov ss, ax
        mov esp, [harness_esp]
        mov es, ax
        xor eax, eax
        mov fs, ax
        mov gs, ax
        popfd
        pop edi
        pop esi
        pop ebp
        pop ebx
        ret

; For a 16-bit gate, vector 42h: the frame's words, and the whole stack pointer of the handler.
narrow_stub:
        push ds
        push eax
        mov eax, KDATA
        mov ds, ax
        pushfd
        pop dword [caught + HFLAGS_]
        mov [caught + HCS_], cs
        mov [caught + HSS_], ss
        pop dword [caught + AX_]
        pop dword [caught + DS_]
        mov dword [caught + VECTOR_], 0x42
        mov dword [caught + ERROR_], 0
        mov [caught + FRAME_], esp
        xor eax, eax
        pop ax
        mov [caught + IP_], eax
        pop ax
        mov [caught + CS_], eax
        pop ax
        mov [caught + FLAGS_], eax
        mov ax, cs
        xor ax, [caught + CS_]
        test al, 3
        jz .same
        pop ax
        mov [caught + SP_], eax
        pop ax
        mov [caught + SS_], eax
        jmp back
.same:  mov [caught + SP_], esp
        mov eax, ss
        mov [caught + SS_], eax
        jmp back

; Real mode. real_image is to be copied to REAL, where interrupt n comes to REAL + n * 8; the state is in the words behind it.
REAL    equ 0x6000
REAL_STATE equ 0x7000                   ; struct machine_state; then SP and SS of the frame, and the vector
IVT_REGISTER equ 0x7100
%define AT(label) (REAL + label - real_image)

; void enter_real(const struct machine_state* state): as enter, in real mode. Segment limits are what the selectors `unreal` says:
; 64 KiB, or 4 GiB for DS, ES, FS and GS.
enter_real:
        push ebx
        push ebp
        push esi
        push edi
        pushfd
        mov [harness_esp], esp
        mov esi, [esp + 24]
        mov edx, [esp + 28]             ; the selector whose limits DS and its kin keep
        mov edi, REAL_STATE
        mov ecx, 16
        cld
        rep movsd
        mov word [IVT_REGISTER], 0x3ff
        mov dword [IVT_REGISTER + 2], 0
        mov ds, dx
        mov es, dx
        mov fs, dx
        mov gs, dx
        mov eax, KDATA16
        mov ss, ax
        jmp KCODE16:AT(real_enter)

        align 16
real_image:
        bits 16
%assign i 0
%rep 256
        push word i
        jmp near real_taken
        align 8
%assign i i + 1
%endrep
real_enter:
        mov eax, cr0
        and al, 0xfe
        mov cr0, eax
        jmp 0:AT(.real)
.real:  xor ax, ax
        mov ds, ax
        lidt [IVT_REGISTER]
        mov es, [REAL_STATE + ES_]
        mov fs, [REAL_STATE + FS_]
        mov gs, [REAL_STATE + GS_]
        mov ss, [REAL_STATE + SS_]
        mov esp, [REAL_STATE + SP_]
        push word [REAL_STATE + FLAGS_]
        push word [REAL_STATE + CS_]
        push word [REAL_STATE + IP_]
        mov eax, [REAL_STATE + AX_]
        mov ecx, [REAL_STATE + CX_]
        mov edx, [REAL_STATE + DX_]
        mov ebx, [REAL_STATE + BX_]
        mov ebp, [REAL_STATE + BP_]
        mov esi, [REAL_STATE + SI_]
        mov edi, [REAL_STATE + DI_]
        mov ds, [REAL_STATE + DS_]
        iret

; The vector, IP, CS and FLAGS are on whatever stack this is. State is written through CS, since the other segments may end
; anywhere.
real_taken:
        mov [cs:REAL_STATE + AX_], eax
        mov [cs:REAL_STATE + CX_], ecx
        mov [cs:REAL_STATE + DX_], edx
        mov [cs:REAL_STATE + BX_], ebx
        mov [cs:REAL_STATE + BP_], ebp
        mov [cs:REAL_STATE + SI_], esi
        mov [cs:REAL_STATE + DI_], edi
        mov [cs:REAL_STATE + ES_], es
        mov [cs:REAL_STATE + FS_], fs
        mov [cs:REAL_STATE + GS_], gs
        mov [cs:REAL_STATE + SS_], ss
        mov [cs:REAL_STATE + DS_], ds
        xor eax, eax
        pop ax
        mov [cs:REAL_STATE + 64], eax      ; the vector
        pop ax
        mov [cs:REAL_STATE + IP_], eax
        pop ax
        mov [cs:REAL_STATE + CS_], eax
        pop ax
        mov [cs:REAL_STATE + FLAGS_], eax
        mov [cs:REAL_STATE + SP_], esp
        pushf
        pop ax
        mov [cs:REAL_STATE + 68], eax
        cli
        cld
        o32 lgdt [cs:AT(real_gdt)]
        o32 lidt [cs:AT(real_idt)]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword KCODE:real_back
real_gdt:
        dw 64 * 8 - 1
        dd gdt
real_idt:
        dw 2047
        dd idt
        bits 32
real_image_end:

real_back:
        mov eax, KDATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, [harness_esp]
        mov esi, REAL_STATE
        mov edi, caught
        mov ecx, 16
        rep movsd
        mov eax, [REAL_STATE + 64]
        mov [caught + VECTOR_], eax
        mov eax, [REAL_STATE + 68]
        mov [caught + HFLAGS_], eax
        mov dword [caught + ERROR_], 0
        jmp back

; Tasks of task gates, 16 bytes apart, for vectors with an error code: the state that was left is in the main TSS.
        align 16
task_stubs:
%assign i 0
%rep 32
        mov dword [caught + VECTOR_], i
        jmp near task_taken
        align 16
%assign i i + 1
%endrep

task_taken:
        pop dword [caught + ERROR_]
        mov [caught + HCS_], cs
        mov [caught + HSS_], ss
        mov [caught + FRAME_], esp
        pushfd
        pop dword [caught + HFLAGS_]
%macro from_tss 2
        mov eax, [tss + %1]
        mov [caught + %2], eax
%endmacro
        from_tss 0x20, IP_
        from_tss 0x24, FLAGS_
        from_tss 0x28, AX_
        from_tss 0x2c, CX_
        from_tss 0x30, DX_
        from_tss 0x34, BX_
        from_tss 0x38, SP_
        from_tss 0x3c, BP_
        from_tss 0x40, SI_
        from_tss 0x44, DI_
        from_tss 0x48, ES_
        from_tss 0x4c, CS_
        from_tss 0x50, SS_
        from_tss 0x54, DS_
        from_tss 0x58, FS_
        from_tss 0x5c, GS_
        and byte [gdt + TSS + 5], ~2
        and byte [gdt + DF_TSS + 5], ~2
        mov eax, TSS
        ltr ax
        clts
        jmp back

        section .data
        align 16
gdt:    dq 0
        dq 0x00cf9b000000ffff           ; 08: code
        dq 0x00cf93000000ffff           ; 10: data
        dq 0x00cffb000000ffff           ; 18: user code
        dq 0x00cff3000000ffff           ; 20: user data
        dq 0x00009b000000ffff           ; 28: 16-bit code
        dq 0x000093000000ffff           ; 30: 16-bit data
        dq 0x0000890000000067           ; 38: TSS
        dq 0x0000890000000067           ; 40: TSS of the double-fault task
        times 55 dq 0                   ; 48: for the checks
gdt_register:
        dw $ - gdt - 1
        dd gdt

        section .bss
        alignb 4096
idt:    resb 4096
tss:    resb 12288
df_tss: resb 4096
        resb 4096
esp0_top:
        resb 4096
df_stack_top:
        resb 16384
stack_top:
harness_esp: resd 1
new_stack: resd 2
        alignb 16
caught: resd 40
